"""The checks of a backbone: what it builds, and that many weights at once give what each gives alone."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.api import Backbone, Examples
from bench.check.settings import settings
from bench.check.trial import flat
from bench.check.verdicts import Broken, Caution, Check, NotAsked
from bench.network.agreement import NoWay, choose_way
from bench.network.build import build_network
from bench.network.model import STACKED, Classifier, Way
from bench.network.stacked import Form, TasksInside, TasksOutside

SHAPES = ((1, 28, 28), (1,))  # an image of Omniglot, a point of a sine wave; the first that a network can be built for
WAYS = 5
TASKS, EXAMPLES = 3, 10
NUMERICAL = 1e-4


@dataclass(frozen=True)
class Network:
    """A backbone under the checks."""

    name: str
    cls: type[Backbone]

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of inputs that it is asked about."""
        for shape in SHAPES[:-1]:
            try:
                self.build(shape)(torch.zeros(4, *shape))
            except (TypeError, ValueError, RuntimeError, IndexError):
                continue
            return shape
        return SHAPES[-1]

    def build(self, shape: tuple[int, ...] | None = None, output_size: int = WAYS, seed: int = 0) -> nn.Module:
        """Return a network with its initial weights."""
        return build_network(self.cls(), self.shape if shape is None else shape, output_size, seed)

    def task_loss(self) -> Classifier:
        """Return it as the harness runs it, in float64, its weights moved so that none of them are zero."""
        network = self.build().double()
        rng = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in network.parameters():
                p.add_(torch.randn(p.shape, generator=rng, dtype=p.dtype), alpha=0.05)
        return Classifier(network, way=_way(self, TasksInside))


@functools.cache
def _way(subject: Network, form: type[Form]) -> Way:
    return choose_way(subject.build, subject.shape, form)


def declared(subject: Network) -> str:
    """Name, paper and options."""
    return settings(subject.name, subject.cls).replace("settings", "options")


def builds(subject: Network) -> str:
    """A network of the right output, with parameters that an inner loop can adapt."""
    shape = subject.shape
    for output_size in (WAYS, 7):
        network = subject.build(shape, output_size)
        if not isinstance(network, nn.Module):
            raise Broken(f"build returned {type(network).__name__}", "return an nn.Module")
        outputs = network(torch.rand(4, *shape))
        if not isinstance(outputs, Tensor) or outputs.shape != (4, output_size):
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise Broken(
                f"4 inputs of shape {shape} with output_size {output_size} give {got}",
                f"map [n, *input_shape] to [n, output_size], here {(4, output_size)}, without a softmax",
            )
    parameters = dict(network.named_parameters())
    if not any("/" not in name and p.requires_grad for name, p in parameters.items()):
        raise Broken(
            "has no parameter that the inner loop may adapt", "a slash in a name keeps it out; use it sparingly"
        )
    if odd := [name for name, p in parameters.items() if p.dtype != torch.float32]:
        raise Broken(f"parameter {odd[0]} is {parameters[odd[0]].dtype}", "build in float32; the harness casts")
    count = sum(p.numel() for p in parameters.values())
    return f"{count:,} parameters, inputs {shape}, {WAYS} or 7 outputs"


def deterministic(subject: Network) -> str:
    """Initial weights are a function of the seed, outputs of weights and inputs."""
    first, again, other = (subject.build(seed=seed).state_dict() for seed in (0, 0, 1))
    if list(first) != list(again) or not all(torch.equal(first[n], again[n]) for n in first):
        raise Broken(
            "the same seed gives other initial weights the second time",
            "draw from torch's global generator, which the harness has seeded: no numpy, no random, no generator of"
            " its own, no cached network",
        )
    if all(torch.equal(first[n], other[n]) for n in first):
        raise Broken(
            "another seed gives the same initial weights", "do not seed in build(): that is what --seeds is for"
        )
    network, x = subject.build().double().eval(), _inputs(subject)[0]
    if not torch.equal(network(x), network(x)):
        raise Broken("the same inputs give other outputs again", "keep no state in forward(), draw no numbers")
    return "the seed decides the weights, and they the outputs"


def _inputs(subject: Network, tasks: int = TASKS) -> Tensor:
    rng = torch.Generator().manual_seed(2)
    return torch.rand(tasks, EXAMPLES, *subject.shape, generator=rng, dtype=torch.float64)


def together(subject: Network) -> str:
    """Outputs and two derivatives under several sets of weights at once, against the module itself under each."""
    ways = []
    for form in (TasksInside, TasksOutside):
        try:
            ways.append(_way(subject, form))
        except NoWay as error:
            raise Broken(
                str(error),
                "keep weights in parameters alone and nothing from call to call; take chance from nn.Dropout, which"
                " the harness switches off",
            ) from error
    if way := next((way for way in ways if way.reason), None):
        raise Caution(
            f"runs task by task, which is right and slow: {way.reason}",
            "for all tasks at once torch.func.vmap must be able to run forward(): no if on a tensor, no .item(), no"
            " custom autograd.Function without a vmap rule (generate_vmap_rule = True)",
        )
    if way := next((way for way in ways if way.once), None):
        raise Caution(f"torch cannot differentiate it twice, as MAML does: {way.once}", "use other layers for MAML")
    if all(way.name == STACKED for way in ways):
        return "as the module alone; runs on the fast stacked layers"
    return "as the module alone; runs through torch.func.vmap"


def twice_differentiable(subject: Network) -> str:
    """The loss after a step of gradient descent, differentiated through that step, against central differences."""
    task_loss = subject.task_loss()
    if task_loss.way.once:
        raise NotAsked("torch cannot, see above")
    names = list(task_loss.weights)
    x = _inputs(subject, tasks=1)
    examples = Examples(x, torch.arange(EXAMPLES).remainder(WAYS)[None])
    start = {name: w[None] for name, w in task_loss.weights.items()}

    def after_a_step(weights: dict[str, Tensor], graph: bool) -> Tensor:
        w = {name: value.detach().requires_grad_() if not graph else value for name, value in weights.items()}
        loss = task_loss(w, examples).sum()
        grads = torch.autograd.grad(loss, list(w.values()), create_graph=graph, materialize_grads=True)
        return task_loss({n: w[n] - 0.05 * g for n, g in zip(names, grads)}, examples).sum()

    leaves = {name: w.clone().requires_grad_() for name, w in start.items()}
    grads = torch.autograd.grad(after_a_step(leaves, True), list(leaves.values()), materialize_grads=True)
    rng = torch.Generator().manual_seed(4)
    random = torch.randn(flat(start).shape, generator=rng, dtype=torch.float64)
    gradient = flat(dict(zip(names, grads)))
    direction = gradient / gradient.norm().clamp_min(1e-30) + random / random.norm()
    pieces = direction.split([start[name].numel() for name in sorted(names)])
    along = {name: piece.view_as(start[name]) for name, piece in zip(sorted(names), pieces)}
    got, found = float(gradient @ direction), []
    # A longer way may cross kinks of ReLUs, of which deep networks have many; a shorter one drowns in rounding.
    for h in (1e-5, 1e-6, 1e-7, 1e-8, 1e-9):
        ahead, behind = (
            after_a_step({n: w + s * h * along[n] for n, w in start.items()}, False).item() for s in (1, -1)
        )
        found.append((ahead - behind) / (2 * h))
        if abs(got - found[-1]) <= NUMERICAL * max(abs(found[-1]), 1e-3):
            break
    expected = min(found, key=lambda value: abs(got - value))
    if not abs(got - expected) <= NUMERICAL * max(abs(expected), 1e-3):
        raise Broken(
            f"the derivative through an inner step is {got:.6g}, by finite differences {expected:.6g}",
            "use layers that torch can differentiate twice; no detach(), no .data, no custom backward() that is not"
            " itself differentiable",
        )
    return "through an inner step, as finite differences say"


CHECKS: tuple[Check[Network], ...] = (
    Check("declared", "a name, a paper, options that --set can change", declared),
    Check("builds", "[n, *shape] to [n, output_size], with parameters to adapt", builds, ("declared",)),
    Check("deterministic", "initial weights by the seed alone", deterministic, ("builds",)),
    Check("together", "several weights at once give what each gives alone", together, ("builds", "deterministic")),
    Check("twice", "can be differentiated twice, as second order needs", twice_differentiable, ("together",)),
)
