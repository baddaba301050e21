"""Algorithms that break their contract, one way each: what ``bench.check`` must find, and where."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from algorithms.fomaml import FirstOrderMAML
from algorithms.maml import MAML
from bench.api import Adapted, Examples, MetaAlgorithm, MetaGrad, TaskBatch
from bench.check.trial import one_task

ALGORITHMS: dict[type, tuple[str, str]] = {}
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
        return {"seen": next(iter(slow.values())).new_ones(2)}

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

    def inner_step(self, loss, fast, carry, step):
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


@caught(ALGORITHMS, "predicts", "yields 1 predictor for 2 adaptation steps")
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
    def inner_step(self, loss, fast, carry, step):
        new, carry = super().inner_step(loss, fast, carry, step)
        return {n: (2 * fast[n].detach() - w.detach()).requires_grad_() for n, w in new.items()}, carry


@caught(ALGORITHMS, "captures", "a tensor in if, while, and, or, not (wrong.py, line")
class LooksAtALoss(FirstOrderMAML):
    def meta_grad(self, task_loss, slow, tasks):
        result = super().meta_grad(task_loss, slow, tasks)
        return changed(result, lambda n, g: 0 * g) if result.query_loss.mean() > 1e9 else result


@caught(ALGORITHMS, "captures", "between host and device: .tolist()")
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
    def inner_step(self, loss, fast, carry, step):
        grads = torch.autograd.grad(loss.sum(), list(fast.values()))
        return {n: (w - self.inner_lr * g).requires_grad_() for (n, w), g in zip(fast.items(), grads)}, carry


class RatesWithoutAGraph(FirstOrderMAML):
    """Learned rates whose inner step cuts them off; what it does is allowed, and teaches them nothing."""

    def extra_weights(self, network):
        return {"rate/all": torch.tensor(self.inner_lr, dtype=torch.float64)}

    def inner_step(self, loss, fast, carry, step):
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
