"""The work that ``bench.speed`` times: its four settings, the images they process and the arithmetic they need."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import replace_all_batch_norm_modules_

from bench.api import SPLITS, Episode, Examples, TaskBatch
from bench.network.build import build_network
from bench.registry import BACKBONES
from bench.tasks.drawing import ImagePool
from bench.tasks.images import ImageSet
from bench.tasks.stream import TaskStream

BACKBONE = "conv4"
IMAGE = (1, 28, 28)
# A speed comparison with other people's code must know what it compares; nothing of the harness imports this.
MAML_LIKE = ("maml", "fomaml")
SECOND_ORDER = ("maml",)
BETA2, EPS = 0.999, 1e-8  # of S4's inner Adam: torch's defaults

_CLASSES = {"meta_train": 1100, "meta_val": 100, "meta_test": 100}  # as many as Omniglot has to train on


@dataclass(frozen=True)
class Work:
    """One setting: the tasks of a meta-iteration, its inner loop, and the algorithms that it is for.

    With ``inner_batch`` the inner loop takes minibatches from all images of a task and there is no query loss.
    """

    name: str
    n_way: int
    k_shot: int
    k_query: int
    inner_steps: int
    meta_batch: int
    inner_lr: float
    inner_batch: int | None = None
    algos: tuple[str, ...] = MAML_LIKE

    @property
    def support_images(self) -> int:
        """Return how many images the inner loops of a meta-iteration pass forward, one image counted at every step."""
        return self.meta_batch * self.inner_steps * (self.inner_batch or self.n_way * self.k_shot)

    @property
    def query_images(self) -> int:
        """Return how many images the query losses of a meta-iteration pass forward."""
        return 0 if self.inner_batch else self.meta_batch * self.n_way * self.k_query


SETTINGS: dict[str, Work] = {
    work.name: work
    for work in (
        Work("S1", 5, 1, 1, inner_steps=1, meta_batch=32, inner_lr=0.4),
        Work("S2", 5, 1, 15, inner_steps=5, meta_batch=32, inner_lr=0.4),
        Work("S3", 20, 1, 5, inner_steps=5, meta_batch=16, inner_lr=0.1),
        Work("S4", 5, 1, 9, inner_steps=5, meta_batch=5, inner_lr=1e-3, inner_batch=10, algos=("reptile",)),
    )
}
"""Conv4 with BatchNorm on 28 x 28 images in float32; S4's inner rule is Adam with beta1 = 0."""


def hyperparameters(work: Work) -> Mapping[str, object]:
    """Return the settings of the registered algorithm that does this work."""
    settings: dict[str, object] = {"inner_lr": work.inner_lr, "inner_steps": work.inner_steps}
    if work.inner_batch:
        settings |= {"inner_batch": work.inner_batch, "inner_optimizer": "adam"}
    return settings


@dataclass(frozen=True)
class Problem:
    """One algorithm's work on one device in one precision; ``meta_lr`` belongs to ``meta_optimizer``, sgd or adam."""

    work: Work
    algo: str
    device: torch.device
    dtype: torch.dtype = torch.float32
    meta_optimizer: str = "adam"
    meta_lr: float = 1e-3

    @property
    def second_order(self) -> bool:
        """Say whether the algorithm differentiates its inner loop."""
        return self.algo in SECOND_ORDER

    def network(self) -> nn.Module:
        """Return the network with its initial weights, always the same."""
        network = build_network(BACKBONES.get(BACKBONE)(), IMAGE, self.work.n_way, seed=0)
        replace_all_batch_norm_modules_(network)
        return network.to(self.device, self.dtype)

    def stream(self, split: str = "meta_train", seed: int = 0) -> TaskStream:
        """Return the tasks."""
        kind = TaskStream if self.dtype == torch.float32 else _DoubleStream
        episode = Episode(self.work.n_way, self.work.k_shot, self.work.k_query)
        return kind(image_pool(split, self.device), episode, seed)

    def tasks(self) -> TaskBatch:
        """Return the first meta-batch of the stream."""
        return self.stream().batch(0, self.work.meta_batch)

    def minibatches(self, tasks: TaskBatch) -> list[Examples]:
        """Return what the inner loop takes at each of its steps."""
        source = tasks.together() if self.work.inner_batch else tasks.support
        return list(source.minibatches(self.work.inner_batch, self.work.inner_steps))

    def optimizer(self, weights: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        """Return the meta-optimizer over ``weights``."""
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[self.meta_optimizer]
        return kind(list(weights.values()), lr=self.meta_lr)


class _DoubleStream(TaskStream):
    """The same tasks with images in float64."""

    dtype = torch.float64


@functools.cache
def image_pool(split: str, device: torch.device) -> ImagePool:
    """Return made-up characters in Omniglot's numbers: a random pattern for each, and 20 noisy copies of it."""
    rng = torch.Generator().manual_seed(0)
    classes, (_, height, width) = sum(_CLASSES.values()), IMAGE
    pattern = torch.randint(0, 200, (classes, 1, height, width), generator=rng, dtype=torch.uint8)
    images = pattern + torch.randint(0, 56, (classes, 20, height, width), generator=rng, dtype=torch.uint8)
    splits, first = {}, 0
    for name in SPLITS:
        splits[name] = tuple(range(first, first + _CLASSES[name]))
        first += _CLASSES[name]
    names = tuple(f"class {i}" for i in range(classes))
    return ImagePool(ImageSet("made-up", images, names, splits, "random", "none"), split, "pooled", device)


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: FLOP of its forward pass per image, 2 for a multiply-add.

    ``to_inputs`` is what its gradient to the inputs takes, 0 for the first layer. ``surplus`` is the share by which
    torch's double backward computes more than the kernel: with H + 2 padding - stride (H' - 1) rows where kh are
    kept, and columns alike.
    """

    forward: float
    to_inputs: float
    surplus: float = 0.0


def layers(n_way: int) -> list[Layer]:
    """Return the layers of the network that do arithmetic worth counting, in order."""
    network = build_network(BACKBONES.get(BACKBONE)(), IMAGE, n_way, seed=0)
    found: list[Layer] = []

    def note(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        positions, surplus = 1, 0.0
        if isinstance(layer, nn.Conv2d):
            positions = output.shape[2] * output.shape[3]
            area = 1
            for i in (0, 1):
                padded = inputs[0].shape[2 + i] + 2 * int(layer.padding[i])
                area *= padded - layer.stride[i] * (output.shape[2 + i] - 1)
            surplus = area / (layer.kernel_size[0] * layer.kernel_size[1]) - 1
        assert isinstance(layer.weight, Tensor)
        forward = 2.0 * positions * layer.weight.numel()
        found.append(Layer(forward, forward if found else 0.0, surplus))

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(2, *IMAGE))
    return found


def gflop(work: Work, algo: str, least: bool = False) -> float:
    """Return the GFLOP of one meta-iteration, convolutions and linear layers alone, as issue 3's table counts them.

    A layer y = W x has three products of F FLOP per image: y, the gradient to W, and the gradient to x (I = F, but
    I = 0 in the first layer, whose inputs are images). First order, per image passed forward: 2 F + I.

    Second order, per support image and inner step, differentiates these three products once more. Of y: to W and x,
    F + I. Of gW = gy x': to gy and x, F + I. Of gx = W' gy, where it exists: to W and gy, 2 I. Together 2 F + 4 I
    more. The table counts what torch's own operators execute (``torch.utils.flop_counter`` on the plain loop gives
    exactly this): its double backward of a convolution computes more rows and columns of a kernel's gradient than it
    keeps (``Layer.surplus``, of the product gx to W), and in the first layer a gradient to the images that nobody
    asked for, another F. ``least`` leaves these two out: 3% to 5% less.
    """
    first = second = 0.0
    for layer in layers(work.n_way):
        first += 2 * layer.forward + layer.to_inputs
        second += 2 * layer.forward + 4 * layer.to_inputs
        if not least:
            second += layer.surplus * layer.to_inputs if layer.to_inputs else layer.forward
    images = work.support_images + work.query_images
    total = images * first
    if algo in SECOND_ORDER:
        total += work.support_images * second
    return total / 1e9


def supervised_gflop(work: Work) -> float:
    """Return the GFLOP of one forward and backward pass of as many images through one shared network."""
    return gflop(work, "supervised")
