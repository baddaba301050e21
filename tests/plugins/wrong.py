"""Plugins that break their contracts, one way each: what ``bench.check`` must find, and where."""

import random
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from algorithms.fomaml import FirstOrderMAML
from algorithms.maml import MAML
from bench.api import Adapted, Backbone, Dataset, Examples, MetaAlgorithm, MetaGrad, TaskBatch
from bench.checks.problem import one_task
from bench.images import Classification, ImagePool, ImageSet
from bench.layers import BatchNormShift2d
from tests.conftest import TOY

ALGORITHMS: dict[type, tuple[str, str]] = {}
DATASETS: dict[type, tuple[str, str]] = {}
BACKBONES: dict[type, tuple[str, str]] = {}
CALLS = [0]


def caught(where, check, words):
    """File a class under the check that must fail, and a few of its words."""

    def add(cls):
        if isinstance(cls, type) and "__dataclass_params__" not in vars(cls) and where is ALGORITHMS:
            cls = dataclass(frozen=True)(cls)
        where[cls] = check, words
        return cls

    return add


def changed(result, change):
    return MetaGrad({n: change(n, g) for n, g in result.grads.items()}, result.query_loss, result.carry)


@caught(ALGORITHMS, "returns", "named like the slow weights; these differ: ['7.bias']")
class LosesAName(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        return MetaGrad({n: g for n, g in result.grads.items() if n != "7.bias"}, result.query_loss)


@caught(ALGORITHMS, "returns", "gradient of 0.weight is (3, 4, 1, 3, 3); it must have shape (4, 1, 3, 3)")
class KeepsTheTaskAxis(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        return changed(result, lambda n, g: g.expand(tasks.support.n_tasks, *g.shape))


@caught(ALGORITHMS, "returns", "query_loss has shape (); it must hold one loss per task")
class OneLossForAll(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        return MetaGrad(result.grads, result.query_loss.mean())


@caught(ALGORITHMS, "returns", "query_loss still holds its graph")
class KeepsTheGraph(MAML):
    def meta_grad(self, task_loss, slow, tasks):
        fast = {n: w.detach().requires_grad_() for n, w in self.adapt(task_loss, slow, tasks.support).items()}
        return MetaGrad(super().meta_grad(task_loss, slow, tasks).grads, task_loss(fast, tasks.query))


@caught(ALGORITHMS, "returns", "raised KeyError: 'conv1.weight' (wrong.py, line")
class KnowsOneNetwork(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        return changed(super().meta_grad(task_loss, slow, tasks), lambda n, g: g + slow["conv1.weight"])


@caught(ALGORITHMS, "finite", "is not finite on random images")
class DividesByANorm(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        return changed(super().meta_grad(task_loss, slow, tasks), lambda n, g: g / g.norm())


@caught(ALGORITHMS, "finite", "is not finite on blank images")
class DividesByBrightness(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        scale = tasks.support.x.mean(dim=(1, 2, 3, 4)).mean()
        return changed(super().meta_grad(task_loss, slow, tasks), lambda n, g: g / scale * scale)


@caught(ALGORITHMS, "unchanged", "meta_grad changes slow weight")
class ShrinksSlowWeights(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        for w in slow.values():
            w.mul_(0.99)
        return result


@caught(ALGORITHMS, "unchanged", "require a gradient, which it leaves behind")
class MarksSlowWeights(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        for w in slow.values():
            w.requires_grad_()
        return super().meta_grad(task_loss, slow, tasks)


@caught(ALGORITHMS, "unchanged", "changes the query set, which other algorithms share")
class ChangesImages(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        tasks.query.x.zero_()
        return result


@caught(ALGORITHMS, "unchanged", "predictors changes slow weight")
class TrainsAtTest(FirstOrderMAML):
    def predictors(self, task_loss, slow, support, steps, carry):
        yield from super().predictors(task_loss, slow, support, steps, carry)
        for w in slow.values():
            w.add_(1)


@caught(ALGORITHMS, "unchanged", "meta_grad changes the algorithm")
class RemembersItself(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        object.__setattr__(self, "seen", tasks.support.n_tasks)
        return super().meta_grad(task_loss, slow, tasks)


@caught(ALGORITHMS, "repeatable", "another gradient the second time")
class CountsItsCalls(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        CALLS[0] += 1
        return changed(super().meta_grad(task_loss, slow, tasks), lambda n, g: g * (1 + 1 / CALLS[0]))


@caught(ALGORITHMS, "repeatable", "another gradient the second time")
class DrawsNumbers(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        return changed(super().meta_grad(task_loss, slow, tasks), lambda n, g: g * (1 + torch.rand(())))


@caught(ALGORITHMS, "averaged", "is 3 times that of one: it is summed over tasks, not averaged")
class SumsOverTasks(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        return changed(super().meta_grad(task_loss, slow, tasks), lambda n, g: g * tasks.support.n_tasks)


@caught(ALGORITHMS, "averaged", "the carry of three copies of a task is 3 times that of one")
class SumsCarry(FirstOrderMAML):
    def initial_carry(self, slow):
        return {"seen": torch.ones(2, dtype=torch.float64)}

    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        return MetaGrad(result.grads, result.query_loss, {"seen": tasks.carry["seen"] * tasks.support.n_tasks})


@caught(ALGORITHMS, "apart", "beside other tasks and")
class AnswersTheNeighbour(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        s = tasks.support
        return super().meta_grad(task_loss, slow, TaskBatch(Examples(s.x.roll(1, 0), s.y), tasks.query, tasks.carry))


@caught(ALGORITHMS, "apart", "right losses in another order")
class TurnsLossesRound(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        return MetaGrad(result.grads, result.query_loss.flip(0))


@caught(ALGORITHMS, "apart", "the gradient of three tasks is not made of those of each task alone")
class TakesTheFirstTask(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        loss = super().meta_grad(task_loss, slow, tasks).query_loss
        return MetaGrad(super().meta_grad(task_loss, slow, one_task(tasks, 0)).grads, loss)


@caught(ALGORITHMS, "descends", "raises query_loss")
class Climbs(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        return changed(super().meta_grad(task_loss, slow, tasks), lambda n, g: -g)


@caught(ALGORITHMS, "descends", "the gradient is zero")
class DoesNothing(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        return changed(super().meta_grad(task_loss, slow, tasks), lambda n, g: torch.zeros_like(g))


@caught(ALGORITHMS, "order", "claims second order, but is")
class FirstOrderInDisguise(MAML):
    """Leaves out create_graph, as dragen1860/MAML-Pytorch does: the graph leads back, past the gradients."""

    def inner_step(self, loss, fast, carry):
        grads = torch.autograd.grad(loss.sum(), list(fast.values()), materialize_grads=True)
        new = {n: w - self.inner_lr * g for (n, w), g in zip(fast.items(), grads)}
        return new if any(not w.is_leaf for w in fast.values()) else {
            n: w.detach().requires_grad_() for n, w in new.items()
        }, carry  # fmt: skip


@caught(ALGORITHMS, "order", "it is the first-order gradient, of the query loss at the adapted weights")
class ClaimsTooMuch(FirstOrderMAML):
    order: ClassVar = "second"


@caught(ALGORITHMS, "order", "claims first order, but returns the exact gradient")
class ClaimsTooLittle(MAML):
    order: ClassVar = "first"


@caught(ALGORITHMS, "predicts", "yields 1 predictors for 2 adaptation steps")
class PredictsOnce(FirstOrderMAML):
    def predictors(self, task_loss, slow, support, steps, carry):
        yield Adapted(task_loss, self.adapt(task_loss, slow, support, carry))


@caught(ALGORITHMS, "predicts", "to (3, 5, 10)")
class TurnsScoresRound(FirstOrderMAML):
    def predictors(self, task_loss, slow, support, steps, carry):
        for predictor in super().predictors(task_loss, slow, support, steps, carry):
            yield lambda x, p=predictor: p(x).transpose(1, 2)


@caught(ALGORITHMS, "predicts", "depend on the tasks beside it")
class SharesAtTest(FirstOrderMAML):
    def predictors(self, task_loss, slow, support, steps, carry):
        for predictor in super().predictors(task_loss, slow, support, steps, carry):
            yield lambda x, p=predictor: p(x) - p(x).mean(dim=0)


@caught(ALGORITHMS, "predicts", "a predictor's scores are not finite")
class DividesByZeroAtTest(FirstOrderMAML):
    def predictors(self, task_loss, slow, support, steps, carry):
        for predictor in super().predictors(task_loss, slow, support, steps, carry):
            yield lambda x, p=predictor: p(x) / (support.x[:1, :1] * 0).sum()


@caught(ALGORITHMS, "adapts", "four small inner steps take the support loss from")
class ClimbsInside(FirstOrderMAML):
    def inner_step(self, loss, fast, carry):
        new, carry = super().inner_step(loss, fast, carry)
        return {n: (2 * fast[n].detach() - w.detach()).requires_grad_() for n, w in new.items()}, carry


@caught(ALGORITHMS, "captures", "a tensor in if, while, and, or, not (wrong.py, line")
class LooksAtALoss(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        return changed(result, lambda n, g: 0 * g) if result.query_loss.mean() > 1e9 else result


@caught(ALGORITHMS, "captures", "reads a value back to the host: .tolist()")
class MakesAList(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        assert len(result.query_loss.tolist())
        return result


@caught(ALGORITHMS, "captures", "x[mask]")
class ChoosesByMask(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        assert result.query_loss[result.query_loss > 0].shape
        return result


@caught(ALGORITHMS, "declared", "says nothing of where it comes from")
class NoPaper(FirstOrderMAML):
    paper: ClassVar = ""


@caught(ALGORITHMS, "declared", "the dataclass can be changed")
@dataclass
class NotFrozen(MetaAlgorithm):
    inner_lr: float = 0.1
    inner_steps: int = 1
    paper = "none"

    def meta_grad(self, task_loss, slow, tasks):
        raise AssertionError


class NoDataclass(MetaAlgorithm):
    inner_lr: float = 0.1
    paper = "none"

    def meta_grad(self, task_loss, slow, tasks):
        raise AssertionError


ALGORITHMS[NoDataclass] = "declared", "inner_lr is annotated like a setting but is none"


@caught(ALGORITHMS, "declared", "inner_lr has no type, so that it is no setting")
@dataclass(frozen=True)
class Untyped(MetaAlgorithm):
    inner_lr = 0.4
    inner_steps: int = 1
    paper = "none"

    def meta_grad(self, task_loss, slow, tasks):
        raise AssertionError


class NamesOneWeight(FirstOrderMAML):
    def adapted(self, slow):
        return list(slow)[-1]


@caught(ALGORITHMS, "declared", "no flag can give")
class TakesAList(FirstOrderMAML):
    rates: tuple[float, ...] = (0.1, 0.2)


@caught(ALGORITHMS, "declared", "order is 'third'")
class ThirdOrder(FirstOrderMAML):
    order: ClassVar = "third"


class SumsSecondOrder(MAML):
    def meta_grad(self, task_loss, slow, tasks):
        return changed(super().meta_grad(task_loss, slow, tasks), lambda n, g: g * tasks.support.n_tasks)


class ForgetsZeros(FirstOrderMAML):
    def inner_step(self, loss, fast, carry):
        grads = torch.autograd.grad(loss.sum(), list(fast.values()))
        return {n: (w - self.inner_lr * g).requires_grad_() for (n, w), g in zip(fast.items(), grads)}, carry


class RatesWithoutAGraph(FirstOrderMAML):
    """Learned rates whose inner step cuts them off; what it does is allowed, and teaches them nothing."""

    def extra_weights(self, network):
        return {"rate/all": torch.tensor(self.inner_lr, dtype=torch.float64)}

    def inner_step(self, loss, fast, carry):
        names = self.adapted(fast)
        grads = torch.autograd.grad(loss.sum(), [fast[name] for name in names], materialize_grads=True)
        rate = fast["rate/all"]
        new = {n: fast[n] - rate.view(-1, *[1] * (g.dim() - 1)) * g for n, g in zip(names, grads)}
        return {n: w.detach().requires_grad_() for n, w in new.items()}, carry


class LoopsOverTasks(FirstOrderMAML):
    """Right, and slow: it works on every task alone, twice."""

    def meta_grad(self, task_loss, slow, tasks):
        alone = [one_task(tasks, t) for t in range(tasks.support.n_tasks)]
        each = [FirstOrderMAML.meta_grad(self, task_loss, slow, task) for task in alone * 2][: len(alone)]
        grads = {n: torch.stack([e.grads[n] for e in each]).mean(dim=0) for n in slow}
        return MetaGrad(grads, torch.cat([e.query_loss for e in each]))


# Data sets: each a change of the toy one.


def toy(**changes):
    """Return the toy images, some fields changed."""
    from bench.registry import load_plugin

    fields = {**vars(load_plugin(TOY).toy_images()), "name": "wrong", **changes}
    cls = fields.pop("cls", ImageSet)
    return cls(**fields)


class Wrong(Dataset):
    paper = "none"
    licence = "none needed"

    def load(self, root, cache):
        return toy()


@caught(DATASETS, "declared", "under which licence")
class NoLicence(Wrong):
    licence = ""


@caught(DATASETS, "loads", "is registered as 'wrong', but what it loads is named 'toy'")
class OtherName(Wrong):
    def load(self, root, cache):
        return toy(name="toy")


@caught(DATASETS, "loads", "a second load gives data with another sha256")
class NewEveryTime(Wrong):
    def load(self, root, cache):
        return toy(sha256=str(random.random()))


@caught(DATASETS, "splits", "is in the splits twice")
class SharedClass(Wrong):
    def load(self, root, cache):
        splits = toy().splits
        return toy(splits={**splits, "meta_test": (*splits["meta_test"], splits["meta_train"][0])})


@caught(DATASETS, "splits", "different names of 60")
class SameNames(Wrong):
    def load(self, root, cache):
        return toy(class_names=("x",) * 60)


@caught(DATASETS, "splits", "image 3 of class 2 (class 2) is blank")
class BlankImage(Wrong):
    def load(self, root, cache):
        images = toy().images.clone()
        images[2, 3] = 0
        return toy(images=images)


@caught(DATASETS, "splits", "images are torch.float32")
class FloatImages(Wrong):
    def load(self, root, cache):
        return toy(images=toy().images / 255)


class Odd(ImageSet):
    """Brings a pool of another class."""

    made_of: ClassVar = ImagePool

    def pool(self, split, rotation, device):
        return self.made_of(self, split, rotation, device)


class RandomPool(ImagePool):
    def examples(self, parts, episode, dtype):
        (x, y), query = super().examples(parts, episode, dtype)
        return (x * torch.rand(()), y), query


class UnscaledPool(ImagePool):
    def examples(self, parts, episode, dtype):
        (x, y), query = super().examples(parts, episode, dtype)
        return (x * 255, y), query


class SameLabelPool(ImagePool):
    def examples(self, parts, episode, dtype):
        (x, y), query = super().examples(parts, episode, dtype)
        return (x, torch.zeros_like(y)), query


class BatchPool(ImagePool):
    def _draw(self, bits, episode):
        return super()._draw(lambda purpose, n: bits(purpose, n).sort(dim=0).values, episode)


class WaitingPool(ImagePool):
    def examples(self, parts, episode, dtype):
        assert parts[0].max().item() >= 0
        return super().examples(parts, episode, dtype)


def pooled(check, words, pool):
    """File a data set whose tasks come from another pool."""
    source = type(f"Odd{pool.__name__}", (Odd,), {"made_of": pool})
    cls = type(f"With{pool.__name__}", (Wrong,), {"load": lambda self, root, cache: toy(cls=source)})
    DATASETS[cls] = check, words


pooled("same-for-all", "other tasks the second time", RandomPool)
pooled("same-for-all", "task 3 depends on which other tasks are drawn with it", BatchPool)
pooled("examples", "pixels from", UnscaledPool)
pooled("examples", "labels are not 0 to 4, 1 of each", SameLabelPool)
pooled("captures", "examples() reads a value back to the host", WaitingPool)


def measured(words, **wrong):
    """File a data set whose objective has another loss or score."""
    objective = type("Measured", (Classification,), {n: staticmethod(f) for n, f in wrong.items()})()
    source = type("OddlyMeasured", (ImageSet,), {"objective": objective})
    DATASETS[type("Measures", (Wrong,), {"load": lambda self, root, cache: toy(cls=source)})] = "measures", words


CLASSES = Classification()
measured("loss returns ()", loss=lambda outputs, y: CLASSES.loss(outputs, y).mean())
measured("loss returns values without a gradient", loss=lambda outputs, y: CLASSES.loss(outputs, y).detach())
measured("score returns torch.float32 (3, 10)", score=lambda outputs, y: CLASSES.score(outputs, y).float())


class AcceptsAll(ImageSet):
    def check(self, split, rotation, episode):
        pass


@caught(DATASETS, "refuses", "accepts 1000000-way 1-shot tasks")
class NeverRefuses(Wrong):
    def load(self, root, cache):
        return toy(cls=AcceptsAll)


# Backbones: each a change of one linear layer.


class Linear(Backbone):
    paper = "none"

    def build(self, input_shape, output_size):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, output_size))


@caught(BACKBONES, "declared", "says nothing of where it comes from")
class Anonymous(Linear):
    paper = ""


@caught(BACKBONES, "builds", "with output_size 7 give (4, 5)")
class AlwaysFive(Linear):
    def build(self, input_shape, output_size):
        return super().build(input_shape, 5)


@caught(BACKBONES, "builds", "no parameter that the inner loop may adapt")
class NothingToAdapt(Linear):
    def build(self, input_shape, output_size):
        return nn.Sequential(BatchNormShift2d(1), nn.Flatten(), nn.AdaptiveAvgPool1d(output_size))


@caught(BACKBONES, "builds", "does not require a gradient")
class Frozen(Linear):
    def build(self, input_shape, output_size):
        network = super().build(input_shape, output_size)
        network[1].bias.requires_grad_(False)
        return network


@caught(BACKBONES, "deterministic", "other initial weights the second time")
class OwnRandomness(Linear):
    def build(self, input_shape, output_size):
        network = super().build(input_shape, output_size)
        nn.init.constant_(network[1].bias, random.random())
        return network


@caught(BACKBONES, "deterministic", "another seed gives the same initial weights")
class OwnSeed(Linear):
    def build(self, input_shape, output_size):
        torch.manual_seed(0)
        return super().build(input_shape, output_size)


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


@caught(BACKBONES, "deterministic", "other outputs again")
class Remembers(Linear):
    def build(self, input_shape, output_size):
        return nn.Sequential(nn.Flatten(), Counting(784, output_size))


class Deciding(nn.Linear):
    def forward(self, x):
        return super().forward(x) if self.weight.sum() > -1e9 else x


@caught(BACKBONES, "stacked", "cannot run with several weights at once")
class Decides(Linear):
    def build(self, input_shape, output_size):
        return nn.Sequential(nn.Flatten(), Deciding(784, output_size))


class OnceOnly(torch.autograd.Function):
    """A square whose derivative torch is told to be a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0].detach())

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0].detach() * grad


class Squares(nn.Module):
    def forward(self, x):
        return OnceOnly.apply(x)


@caught(BACKBONES, "twice", "the derivative through an inner step is")
class FirstOrderOnly(Linear):
    def build(self, input_shape, output_size):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), Squares(), nn.Linear(8, output_size))


class DetachedSquare(OnceOnly):
    """Right for one set of weights; its rule for several gives the same numbers, and no gradient."""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info, in_dims, x):
        return (x * x).detach(), in_dims[0]


class DoubledSquare(DetachedSquare):
    @staticmethod
    def vmap(info, in_dims, x):
        return 2 * x * x, in_dims[0]


def squared(words, rule):
    """File a backbone with a square that has a rule of its own for several weights."""
    layer = type("Square", (nn.Module,), {"forward": lambda self, x: rule.apply(x)})

    def build(self, input_shape, output_size):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), layer(), nn.Linear(8, output_size))

    BACKBONES[type(f"With{rule.__name__}", (Linear,), {"build": build})] = "stacked", words


squared("gradients of several weights at once are not those of each alone", DetachedSquare)
squared("networks of several weights at once do not give what each gives alone", DoubledSquare)
