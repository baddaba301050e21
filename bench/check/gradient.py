"""The checks of which gradient it is: a mean over tasks that are kept apart, downhill, of the claimed order."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.api import Weights
from bench.check.trial import Algorithm, Trial, flat, one_task
from bench.check.verdicts import Broken, Caution, NotAsked

ROUNDING = 1e-9  # relative, in float64: what is left of a sum taken in another order
NUMERICAL = 1e-4  # relative: what central differences with a step of 1e-6 may be off by


def averaged(subject: Algorithm) -> str:
    """Three copies of one task must give what one gives."""
    trial = subject.trial()
    one, three = (trial.estimate(one_task(trial.tasks, 0, copies)) for copies in (1, 3))
    for what, single, several in (("gradient", one.grads, three.grads), ("carry", one.carry, three.carry)):
        a, b = flat(single), flat(several)
        if not a.numel() or (b - a).norm() <= ROUNDING * a.norm():
            continue
        factor = float(a @ b / (a @ a))
        if (b - factor * a).norm() <= ROUNDING * b.norm():
            text = f"the {what} of three copies of a task is {factor:.4g} times that of one"
            text += ": it is summed over tasks, not averaged" if abs(factor - 3) < 1e-6 else ""
        else:
            raise Broken(
                f"the {what} of three copies of a task is not that of one",
                "look for a mean over tasks on the way: an inner step follows the gradient of loss.sum(), which is each"
                " task's own, however many there are",
            )
        raise Broken(
            text,
            "differentiate query_loss.mean(), or query_loss.sum() with .mean(dim=0) over the task axis of each"
            " gradient, so that meta_lr does not depend on meta_batch",
        )
    return "three copies of a task give the gradient of one"


def apart(subject: Algorithm) -> str:
    """A batch of different tasks against each of them alone; a common factor is the business of ``averaged``."""
    trial = subject.trial()
    whole, alone = trial.estimate(), trial.alone()
    remedy = (
        "keep the task axis in front, [T, ...], through every operation, and reduce over it only at the end; look for"
        " a mean, a norm, an index, a reshape or a roll that reaches across it"
    )
    losses = torch.cat([a.query_loss for a in alone])
    if not torch.allclose(whole.query_loss, losses, rtol=ROUNDING, atol=0):
        if torch.allclose(whole.query_loss.sort().values, losses.sort().values, rtol=ROUNDING, atol=0):
            raise Broken("query_loss holds the right losses in another order than that of the tasks", remedy)
        t = int((whole.query_loss - losses).abs().argmax())
        raise Broken(
            f"the loss of task {t} is {float(whole.query_loss[t]):.6g} beside other tasks and {float(losses[t]):.6g}"
            " alone", remedy,
        )  # fmt: skip
    for what, got, each in (
        ("gradient", whole.grads, [a.grads for a in alone]),
        ("carry", whole.carry, [a.carry for a in alone]),
    ):
        if not got:
            continue
        a, b = torch.stack([flat(e) for e in each]).mean(dim=0), flat(got)
        factor = a @ b / (a @ a) if a.any() else 1.0
        if not (b - factor * a).norm() <= ROUNDING * b.norm():
            raise Broken(f"the {what} of three tasks is not made of those of each task alone", remedy)
    return "a batch gives what its tasks give one by one"


def learns(subject: Algorithm) -> str:
    """Extra weights must get a gradient that is not zero, or the outer loop never moves them."""
    trial = subject.trial()
    extra = [name for name in trial.slow if "/" in name]
    if not extra:
        raise NotAsked("no extra_weights: the network is all that is learned")
    grads = trial.estimate().grads
    moved = [name for name in extra if grads[name].any()]
    if not moved:  # some may have none, those of a bias in front of normalisation say
        raise Caution(
            f"all extra weights get a gradient of zero, {extra[0]} among them: they would never be learned",
            "let a graph lead from query_loss back to them: begin meta_grad with slow = {name:"
            " w.detach().requires_grad_() for name, w in slow.items()}, differentiate with respect to all of slow, and"
            " detach nothing in inner_step",
        )
    return f"{len(moved)} of {len(extra)} extra weights get gradients"


def slope(trial: Trial, direction: Weights, h: float = 1e-6) -> float:
    """Return by central differences how the mean ``query_loss`` changes along a direction."""
    ahead, behind = (
        float(trial.estimate(slow={n: w + s * h * direction[n] for n, w in trial.slow.items()}).query_loss.mean())
        for s in (1, -1)
    )
    return (ahead - behind) / (2 * h)


def descends(subject: Algorithm) -> str:
    """A step against the gradient must lower the loss, if only the inner steps are small."""
    if not subject.cls.learns:
        raise NotAsked("learns = False: nothing moves in meta-training")
    trial = subject.trial(inner_lr=1e-3)
    grads = trial.estimate().grads
    length = flat(grads).norm()
    if not length:
        raise Broken("the gradient is zero", "check that query_loss depends on the weights that are differentiated")
    if slope(trial, {n: g / length for n, g in grads.items()}) <= 0:
        raise Broken(
            "a small step against the gradient raises query_loss",
            "return what a descent subtracts: the gradient of the loss, or slow minus adapted weights; its sign is"
            " turned",
        )
    return "a small step against the gradient lowers the loss"


def order(subject: Algorithm) -> str:
    """The gradient along a random direction, against central differences of the loss after adaptation."""
    trial = subject.trial(inner_lr=0.05, inner_steps=3)
    grads = trial.estimate().grads
    rng = torch.Generator().manual_seed(1)
    errors = []
    for _ in range(3):
        direction = {n: torch.randn(w.shape, generator=rng, dtype=w.dtype) for n, w in trial.slow.items()}
        got = float(flat(grads) @ flat(direction))
        slopes = [slope(trial, direction, h) for h in (1e-6, 1e-7)]  # the longer way may cross a kink of a ReLU
        errors.append(min(abs(got - s) / max(abs(s), 1e-3 * float(flat(grads).norm())) for s in slopes))
    exact, off = max(errors) < NUMERICAL, f"{100 * max(errors):.3g}%"
    claimed = subject.cls.order
    if claimed is None:
        is_what = "that is" if exact else "that is not"
        raise NotAsked(f"claims no order (a gradient {is_what} exact)")
    if claimed == "second" and not exact:
        first = _first_order(trial)
        same = first is not None and set(first) == set(grads) and (flat(first) - flat(grads)).norm() <= (
            ROUNDING * flat(grads).norm()
        )  # fmt: skip
        text = f"claims second order, but is {off} off the finite differences of query_loss"
        if same:
            text += "; it is the first-order gradient, of the query loss at the adapted weights"
        raise Broken(
            text,
            "let the graph lead from the adapted weights back to slow: begin with slow that requires gradients, take"
            " those of the inner loop with self.inner_grads(loss, fast) or create_graph=True, detach() nothing on the"
            ' way, and differentiate with respect to slow; or declare order = "first"',
        )
    if claimed == "first" and exact:
        raise Broken(
            "claims first order, but returns the exact gradient of query_loss through the inner loop",
            'declare order = "second", or take the gradient at the adapted weights, cut off from slow',
        )
    if claimed == "second":
        return f"second, as claimed (finite differences: to {max(errors):.0e})"
    return f"first, as claimed ({off} off finite differences; whether it is yours, a formula tells)"


def _first_order(trial: Trial) -> dict[str, Tensor] | None:
    """Return the mean over tasks of the query gradient at the adapted weights, if there is such a thing."""
    try:
        fast = trial.algorithm.adapt(trial.task_loss, trial.slow, trial.tasks.support)
        fast = {name: w.detach().requires_grad_() for name, w in fast.items()}
        loss = trial.task_loss(fast, trial.tasks.query).sum()
        grads = torch.autograd.grad(loss, list(fast.values()), materialize_grads=True)
    except Exception:  # only asked for a better explanation; a plugin may raise anything
        return None
    return {name: g.mean(dim=0) for name, g in zip(fast, grads)}
