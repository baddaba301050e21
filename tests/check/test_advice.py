"""What plugin authors get wrong, made on the guide's examples: the check that finds it names the cause and the cure."""

import pytest
import torch
from guide import FILES

from bench.api import BenchError
from bench.check.algorithm import CHECKS, Algorithm
from bench.check.verdicts import Status, ask
from bench.network.build import extra_weights
from bench.registry import ALGORITHMS, load_plugin

SGD, STEPS, PROTOTYPES, ANIL, FIRST = (
    FILES[f"{name}.py"] for name in ("my_meta_sgd", "my_multi_step", "my_prototypes", "my_anil", "first_order_anil")
)
LIKE = "torch.full_like(w, self.inner_lr)"
HOT = "F.one_hot(support.y, support.n_way)"
YIELD = "yield lambda x: self.scores(task_loss, slow, support, x)"
LEAVES = "slow = {name: w.detach().requires_grad_() for name, w in slow.items()}  # the rates among them"
MISTAKES = {
    "a type of its own": (
        SGD, LIKE, "torch.full(w.shape, self.inner_lr)", "returns",
        "extra weight 'rate/0.weight' is torch.float32 where the network's weights are torch.float64",
        "torch.full_like(w, value)"),
    "numbers for tensors": (SGD, LIKE, "self.inner_lr", "returns", "'rate/0.weight' is float", "make it a tensor"),
    "no slash": (SGD, 'f"rate/{name}"', 'f"rate_{name}"', "returns", "no slash in its name", 'call it "rate/'),
    "extra weights without gradients": (
        SGD, "list(slow.values()), materialize_grads=True)\n        return MetaGrad(dict(zip(slow, grads))",
        "[w for n, w in slow.items() if '/' not in n], materialize_grads=True)\n        return MetaGrad(dict(zip(slow,"
        " grads))",
        "returns", "named like the slow weights; these differ: ['rate/0.bias'", "list(slow.values())"),
    "a rate without axes": (
        STEPS, "rate.view(-1, *[1] * (g.dim() - 1)) * g", "rate * g", "returns", "must match", "rate.view(-1,"),
    "a rate without tasks": (
        STEPS, "[:, step]", "[step]", "returns", "must match the size", "[T, ...], extra weights too"),
    "a rate per step and no more": (
        STEPS, "step = min(step, self.inner_steps - 1)", "pass", "adapts", "out of bounds",
        "min(step, self.inner_steps"),
    "a guessed number of classes": (PROTOTYPES, HOT, "F.one_hot(support.y)", "captures", "without a number of classes",
                                    "one_hot(y, examples.n_way)"),
    "a counted number of classes": (PROTOTYPES, HOT, "F.one_hot(support.y, int(support.y.max()) + 1)", "captures",
                                    "int(tensor)", "examples.n_way"),
    "a fixed number of classes": (PROTOTYPES, HOT, "F.one_hot(support.y, 5)", "ways", "to (3, 6, 5)", "support.n_way"),
    "shots taken for classes": (
        PROTOTYPES, HOT, "F.one_hot(support.y, shots)", "ways", "3-way 2-shot", "support.n_way"),
    "float for the type of others": (
        PROTOTYPES, ".to(outputs.dtype)", ".float()", "returns", "expected scalar type", ".to(x.dtype) in place of"),
    "distances for scores": (
        PROTOTYPES, "return -(", "return (", "predicts", "lowest score on 100%", "minus the distance"),
    "nothing to predict with": (PROTOTYPES, YIELD, "yield from ()", "predicts", "yields 0 predictors", "one alone if"),
    "a predictor returned": (
        PROTOTYPES, YIELD, YIELD.replace("yield", "return"), "predicts", "not iterable", "yield predictor in place of"),
    "slow weights for fast ones": (
        PROTOTYPES, "stack(slow, support.n_tasks)", "slow", "returns", "out of range", "bench.api.stack(slow"),
    "classes last": (
        PROTOTYPES, "scores.transpose(1, 2)", "scores", "returns", "Expected target", "scores.transpose(1, 2)"),
    "a loss that keeps its graph": (
        SGD, "query_loss.detach()", "query_loss", "returns", "query_loss still holds its graph", "with .detach()"),
    "one loss for all": (
        SGD, "query_loss.detach()", "query_loss.sum().detach()", "returns", "one loss per task",
        "return what task_loss"),
    "losses summed over tasks": (STEPS, "losses.mean(dim=0)", "losses.sum(dim=1)", "returns", "(7,)", "what task_loss"),
    "a sum over tasks": (
        SGD, "query_loss.mean(), list", "query_loss.sum(), list", "averaged", "is 3 times", "query_loss.mean()"),
    "a mean over tasks inside": (
        ANIL, "loss.sum(), head", "loss.mean(), head", "averaged", "not that of one", "loss.sum()"),
    "losses differentiated at once": (ANIL, "loss.sum(), head", "loss, head", "returns", "scalar", "loss.sum()"),
    "no create_graph": (
        ANIL, "create_graph=training", "create_graph=False", "order", "first-order", "create_graph=True"),
    "a detached step": (SGD, "fast[name] - fast[", "fast[name].detach() - fast[", "order", "% off", "detach() nothing"),
    "a first order that claims more": (
        FIRST, "    paper =", '    order = "second"\n    paper =', "order", "first-order", 'declare order = "first"'),
    "slow weights that are no leaves": (SGD, LEAVES, "", "returns", "does not require grad", "begin with slow = {"),
    "no zeros": (
        SGD, "values()), materialize_grads=True", "values())", "returns", "to not have been used",
        "materialize_grads=True"),
    "no carry": (
        SGD, "grads.items()}, carry", "grads.items()}", "returns", "inner_step returns dict", "return new, carry"),
    "carry that is lost": (
        SGD, "    def meta_grad",
        "    def initial_carry(self, slow):\n        return {'n': torch.zeros(1)}\n\n    def meta_grad",
        "returns", "'n' was (1,) torch.float32 and became missing", "return all of initial_carry"),
    "tasks left in front": (FIRST, "g.mean(dim=0)", "g", "returns", "it must have shape (4, 1, 3, 3)", ".mean(dim=0)"),
    "images for examples": (
        SGD, "tasks.support)", "tasks.support.x)", "returns", "minibatches", "tasks.support, and not"),
    "a tensor on the CPU": (
        STEPS, "losses.mean(dim=0)", "(losses * torch.ones(3, 1, dtype=losses.dtype)).mean(dim=0)", "captures",
        "torch.ones(...) without a device", "w.new_full(shape, value)"),
    "nothing teaches the rates": (
        SGD, 'fast[f"rate/{name}"] * g', 'fast[f"rate/{name}"].detach() * g', "learns", "gradient of zero",
        "detach nothing"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "right", "wrong", "name", "found", "remedy"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_cause_and_its_cure(text, right, wrong, name, found, remedy, tmp_path):
    assert right in text
    path = tmp_path / "mistaken.py"
    path.write_text(text.replace(right, wrong).replace('@register_algorithm("', '@register_algorithm("mistaken-'))
    load_plugin(path)
    (registered,) = (n for n in ALGORITHMS.names() if n.startswith("mistaken-"))
    (check,) = (c for c in CHECKS if c.name == name)
    verdict = ask(check, Algorithm(registered, ALGORITHMS._classes.pop(registered)))
    assert verdict.status == (Status.WARNING if name == "learns" else Status.FAILED)
    assert found in verdict.found, verdict
    assert remedy in verdict.remedy, verdict


def test_an_old_signature_is_refused_with_the_new_one(tmp_path):
    path = tmp_path / "old.py"
    path.write_text(SGD.replace(", step: int)", ")"))
    with pytest.raises(BenchError) as refused:
        load_plugin(path)
    assert str(refused.value) == (
        "algorithm 'my-meta-sgd': inner_step(self, loss, fast, carry) does not take what it is given; its arguments are"
        " inner_step(self, loss, fast, carry, step)"
    )
    assert "my-meta-sgd" not in ALGORITHMS.names()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (None, "algorithm 'mine': extra_weights returned NoneType; return a dict of tensors by name"),
        ({"a": torch.ones(1)}, "'a' has no slash in its name, which keeps the inner loop away; call it \"rate/a\""),
        ({"w/x": torch.ones(1)}, "'w/x' is the name of a weight of the network; choose another"),
        ({"r/x": 1.0}, "extra weight 'r/x' is float; make it a tensor: torch.full_like(w, value)"),
        ({"r/x": torch.ones(1).double()}, "'r/x' is torch.float64 where the network's weights are torch.float32; make"),
    ],
)
def test_extra_weights_that_do_not_fit_are_told_at_run_time_too(extra, words):
    class Mine(ALGORITHMS.get("maml")):
        def extra_weights(self, network):
            return extra

    with pytest.raises(BenchError) as refused:
        extra_weights("mine", Mine(), {"w/x": torch.ones(2)}, 0)
    assert words in str(refused.value)
