"""The page on algorithms: its three examples against plain loops over tasks, and the contract that it prints."""

import ast
import re

import pytest
import torch
import torch.nn.functional as F
from commands import table
from guide import TEXT, commands, written
from places import REPOSITORY
from torch.func import functional_call

from bench.api import Episode
from bench.check.command import main as check
from bench.check.trial import image_tasks, relative_error, small_classifier
from bench.cli import command
from bench.network.build import build
from bench.registry import ALGORITHMS, DATASETS, create_algorithm, load_plugin
from bench.settings.config import RunConfig
from bench.tasks.stream import TaskStream
from bench.training.metastep import MetaStep

NAMES = {
    "my_meta_sgd.py": "my-meta-sgd",
    "my_multi_step.py": "my-multi-step",
    "my_prototypes.py": "my-prototypes",
}


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """The three files as printed, gone from this process's registry afterwards."""
    folder = written(tmp_path_factory.mktemp("guide"), NAMES)
    for name in NAMES:
        load_plugin(folder / name)
    yield folder
    for name in NAMES.values():
        ALGORITHMS._classes.pop(name, None)


def asked(name, rng, **settings):
    """An algorithm with its float64 problem of three tasks, its extra weights no longer alike."""
    algorithm = create_algorithm(name, **settings)
    task_loss = small_classifier(rng, n_way=algorithm.output_size(5))
    extra = algorithm.extra_weights(task_loss.weights)
    extra = {n: w + 0.1 * torch.rand(w.shape, generator=rng, dtype=w.dtype) for n, w in extra.items()}
    return algorithm, task_loss, {**task_loss.weights, **extra}, image_tasks(rng, n_tasks=3, size=8, k_shot=2)


def looped(task_loss, slow, tasks, steps, step_size):
    """One task after the other on one plain network: the query losses ``[T][steps]``, leading back to ``slow``."""
    losses = []
    for t in range(3):
        fast, along = {n: w for n, w in slow.items() if "/" not in n}, []
        for k in range(steps):
            loss = F.cross_entropy(functional_call(task_loss.network, fast, (tasks.support.x[t],)), tasks.support.y[t])
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            fast = {n: w - step_size(n, k) * g for (n, w), g in zip(fast.items(), grads)}
            logits = functional_call(task_loss.network, fast, (tasks.query.x[t],))
            along.append(F.cross_entropy(logits, tasks.query.y[t]))
        losses.append(along)
    return losses


def gradient(loss, slow):
    return dict(zip(slow, torch.autograd.grad(loss, list(slow.values()), materialize_grads=True)))


@pytest.mark.usefixtures("plugins")
def test_learned_rates_equal_a_loop_over_tasks(rng):
    algorithm, task_loss, slow, tasks = asked("my-meta-sgd", rng, inner_steps=2)
    leaves = {n: w.clone().requires_grad_() for n, w in slow.items()}
    losses = looped(task_loss, leaves, tasks, 2, lambda n, k: leaves[f"rate/{n}"])
    expected = gradient(sum(along[-1] for along in losses) / 3, leaves)
    assert relative_error(algorithm.meta_grad(task_loss, slow, tasks).grads, expected) < 1e-12
    assert expected["rate/0.weight"].any()


@pytest.mark.usefixtures("plugins")
def test_losses_along_the_inner_loop_with_rates_per_step_equal_a_loop_over_tasks(rng):
    algorithm, task_loss, slow, tasks = asked("my-multi-step", rng, inner_steps=3)
    leaves = {n: w.clone().requires_grad_() for n, w in slow.items()}
    losses = looped(task_loss, leaves, tasks, 3, lambda n, k: leaves[f"rates/{n}"][k])
    expected = gradient(sum(sum(along) / 3 for along in losses) / 3, leaves)
    got = algorithm.meta_grad(task_loss, slow, tasks)
    assert relative_error(got.grads, expected) < 1e-12
    assert got.grads["rates/7.weight"].all(), "every step has a rate of its own"


@pytest.mark.usefixtures("plugins")
def test_the_last_rate_goes_on_where_more_steps_are_asked_for(rng):
    algorithm, task_loss, slow, tasks = asked("my-multi-step", rng, inner_steps=2)
    *_, end = algorithm.adaptation(task_loss, slow, tasks.support, 4)
    longer = {n: torch.cat([w, w[-1:], w[-1:]]) if "/" in n else w for n, w in slow.items()}
    four = create_algorithm("my-multi-step", inner_steps=4)
    *_, expected = four.adaptation(task_loss, longer, tasks.support, 4)
    assert all(torch.equal(end.fast[n], w) for n, w in expected.fast.items() if "/" not in n)


@pytest.mark.usefixtures("plugins")
def test_prototypes_equal_a_loop_over_tasks_and_classes(rng):
    algorithm, task_loss, slow, tasks = asked("my-prototypes", rng, embedding=6)
    leaves = {n: w.clone().requires_grad_() for n, w in slow.items()}
    (predictor,) = algorithm.predictors(task_loss, slow, tasks.support, None, {})
    total = 0.0
    for t in range(3):
        x = torch.cat([tasks.support.x[t], tasks.query.x[t]])
        support, query = functional_call(task_loss.network, leaves, (x,)).split((10, 10))
        means = torch.stack([support[tasks.support.y[t] == c].mean(dim=0) for c in range(5)])
        scores = -(query[:, None] - means).square().sum(dim=2)
        torch.testing.assert_close(predictor(tasks.query.x)[t], scores.detach())
        total = total + F.cross_entropy(scores, tasks.query.y[t]) / 3
    got = algorithm.meta_grad(task_loss, slow, tasks).grads
    assert relative_error(got, gradient(total, leaves)) < 1e-12


@pytest.mark.usefixtures("blank_pictures")
def test_the_three_examples_are_checked_and_run_in_the_comparison(plugins, prepared_glyphs, monkeypatch, capsys):
    """No check fails or warns; what is skipped does not apply. The run is the printed one, and shorter."""
    line = next(line for line in commands("algorithm") if "my-multi-step" in line)
    monkeypatch.chdir(plugins)
    assert check(list(NAMES)) == 0
    found = re.findall(r"^  (ok|warning|skipped|FAILED) +(\w+)", capsys.readouterr().out, re.MULTILINE)
    assert {name for status, name in found if status != "ok"} - {"outpaces"} == {"learns", "adapts"}
    shorter = ["--meta-steps", "2", "--val-tasks", "5", "--test-tasks", "10", "--adaptation-tasks", "5"]
    args = [*line.replace("../my_plugins/", "").split(), *shorter, "--data-root", str(prepared_glyphs)]
    assert command.main(args) == 0
    rows = table(plugins / "three" / "summary.csv")
    assert [(row["algo"], row["status"]) for row in rows] == [(name, "ok") for name in NAMES.values()]
    assert len({row["stream_sha256"] for row in rows}) == 1


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("name", NAMES.values())
def test_an_example_learns_glyphs(name, prepared_glyphs):
    """Twelve small meta-steps lower the loss on 16 tasks of other characters, and move the rates."""
    config = RunConfig(algo=name, dataset="glyphs", n_way=5, k_shot=1, k_query=3, meta_steps=12, meta_batch=4,
                       meta_optimizer="adam", meta_lr=0.01, backbone_options={"filters": 8})  # fmt: skip
    source, algorithm = DATASETS.get("glyphs")().load(prepared_glyphs, prepared_glyphs), create_algorithm(name)
    cpu = torch.device("cpu")
    task_loss, slow = build(config, algorithm, source, cpu)
    streams = [TaskStream(source.pool(split, "none", cpu), Episode(5, 1, 3), 0) for split in ("meta_train", "meta_val")]
    others, before = streams[1].batch(0, 16), {n: w.clone() for n, w in slow.items()}
    step = MetaStep(config, algorithm, task_loss, slow, {}, streams[0], 4, captured=False)
    for done in range(12):
        step.hold(done)
        step()
    losses = [float(algorithm.meta_grad(task_loss, w, others).query_loss.mean()) for w in (before, slow)]
    assert losses[1] < 0.95 * losses[0]
    assert not any(torch.equal(slow[n], w) for n, w in before.items() if "/" in n and n.endswith("weight"))


def contract(code):
    """Names of a class ``MetaAlgorithm`` in code, each with its annotation and default or its arguments and result."""
    (cls,) = (node for node in ast.parse(code).body if isinstance(node, ast.ClassDef) and node.name == "MetaAlgorithm")
    found = {}
    for node in cls.body:
        if isinstance(node, ast.AnnAssign):
            found[node.target.id] = ast.unparse(node.annotation), node.value and ast.unparse(node.value)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found[node.name] = ast.unparse(node.args), ast.unparse(node.returns)
    return found


def test_the_page_prints_everything_that_one_may_override_as_it_is():
    (printed,) = re.findall(r"```python\n(class MetaAlgorithm\(ABC\):\n.*?)```", TEXT["algorithm"], re.DOTALL)
    told, true = (contract(code) for code in (printed, (REPOSITORY / "bench" / "api.py").read_text(encoding="utf-8")))
    assert told == true
    assert list(told) == list(true), "in the same order"
    section = TEXT["algorithm"].partition(printed)[2].partition("### What you are handed")[0]
    rows = re.findall(r"^\| `(\w+)` \|(?: [^|]+ \|){3}$", section, re.MULTILINE)
    assert rows == [name for name, (what, _) in true.items() if what.startswith("self")]
    fields = {name for name, (what, _) in true.items() if not what.startswith("self")} - {"inner_lr", "inner_steps"}
    assert {name for name in fields if f"`{name}`" not in section} == set()


def test_the_page_names_all_that_one_is_handed():
    """Public members of the types that algorithms meet, by the names that the page uses."""
    handed = TEXT["algorithm"].partition("### What you are handed")[2]
    tree = ast.parse((REPOSITORY / "bench" / "api.py").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for name, prefix in (("Examples", "examples."), ("TaskBatch", "tasks."), ("InnerState", "state.")):
        for node in classes[name].body:
            member = node.target.id if isinstance(node, ast.AnnAssign) else getattr(node, "name", "")
            if member and member != "orders":  # behind minibatches
                assert prefix + member in handed
