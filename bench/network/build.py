"""From the name of a backbone to a network with its initial weights, and from a run's settings to its task loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.api import Backbone, BenchError, MetaAlgorithm, TaskSource, Weights
from bench.network.agreement import NoWay, choose_way
from bench.network.kernels import NATIVE, Kernels
from bench.network.model import Classifier, Way
from bench.network.stacked import TasksInside, TasksOutside
from bench.registry import BACKBONES, DATASETS, blaming, create_backbone, create_dataset
from bench.settings.code import code_of
from bench.settings.config import RunConfig
from bench.system.waiting import one_thread


def build_network(backbone: Backbone, input_shape: tuple[int, ...], output_size: int, seed: int) -> nn.Module:
    """Build a network whose initial weights depend on ``seed`` alone, leaving torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = backbone.build(input_shape, output_size)
        if not isinstance(network, nn.Module):
            raise TypeError(f"build returned {type(network).__name__}; it must return a torch.nn.Module")
        if any(isinstance(p, nn.parameter.UninitializedParameter) for p in network.parameters()):
            with torch.no_grad():
                network(torch.zeros(2, *input_shape))  # lazy layers learn their sizes
    return network


KNOWN: dict[str, Way] = {}
"""By which way networks are run, by all that decides it, their code included: asked once for all runs alike in that.

What one process has asked holds in every other of the same machine.
"""
_LARGE = 32 * 32  # pixels


def way_of(config: RunConfig, input_shape: tuple[int, ...], output_size: int, device: torch.device) -> Way:
    """Return by which way a run's network is run.

    Raises:
        BenchError: by none, or it cannot be built; says why.
    """
    backbone = backbone_of(config)
    form = TasksOutside if device.type == "cuda" else TasksInside
    registered = BACKBONES.get(config.backbone)
    code = code_of(registered, type(backbone))
    world = () if type(backbone) is registered else (config.dataset, config.dataset_options)
    kind = type(backbone).__qualname__
    key = str((config.backbone, kind, config.backbone_options, world, code, *input_shape, output_size, form.__name__))
    if key not in KNOWN or code is None:  # of a class without a file nothing tells whether it is the same
        with blaming(f"backbone {config.backbone!r} cannot be built for inputs of the shape {tuple(input_shape)}"):
            shape = asked_shape(backbone, input_shape, output_size)
        with blaming(f"backbone {config.backbone!r}"):
            try:
                KNOWN[key] = choose_way(lambda: build_network(backbone, shape, output_size, 0), shape, form)
            except NoWay as error:
                raise BenchError(f"backbone {config.backbone!r}: {error}") from error
    return KNOWN[key]


def asked_shape(backbone: Backbone, input_shape: tuple[int, ...], output_size: int) -> tuple[int, ...]:
    """Return the inputs that decide by which way a network is run: small images where it is the same network for them.

    The same layers with the same parameters are; to ask about ResNet-12 on 84 x 84 pixels took a minute, on 21 x 21
    it takes seconds.
    """
    asked = input_shape
    wanted = _layout(build_network(backbone, asked, output_size, 0))
    while len(asked) == 3 and asked[1] * asked[2] > _LARGE:
        smaller = (asked[0], asked[1] // 2, asked[2] // 2)
        try:
            same = _layout(build_network(backbone, smaller, output_size, 0)) == wanted
        except Exception:  # of somebody's build(), which need not know such images
            break
        if not same:
            break
        asked = smaller
    return asked


def _layout(network: nn.Module) -> tuple[str, dict[str, torch.Size]]:
    return repr(network), {name: value.shape for name, value in network.state_dict().items()}


def backbone_of(config: RunConfig) -> Backbone:
    """Return what builds a run's network, the data set's own world around it where that has one.

    Weights that came from elsewhere may be of a data set that is not registered here.
    """
    backbone = create_backbone(config.backbone, **config.backbone_options)
    if config.dataset not in DATASETS.names():
        return backbone
    return create_dataset(config.dataset, **config.dataset_options).around(backbone)


def plain_network(config: RunConfig, algorithm: MetaAlgorithm, input_shape: tuple[int, ...]) -> nn.Module:
    """Return a run's network as its backbone builds it, an ordinary module with its initial weights."""
    return build_network(backbone_of(config), input_shape, algorithm.output_size(config.n_way), config.seed)


def build(
    config: RunConfig,
    algorithm: MetaAlgorithm,
    source: TaskSource,
    device: torch.device,
    kernels: Kernels = NATIVE,
) -> tuple[Classifier, dict[str, Tensor]]:
    """Return the task loss and the initial slow weights, the algorithm's own among them, on the device.

    Raises:
        BenchError: the network can be run in no way, or the algorithm's extra weights are wrong.
    """
    way = way_of(config, source.shape, algorithm.output_size(config.n_way), device)
    network = plain_network(config, algorithm, source.shape)
    strays = dict(network.named_parameters())
    product = torch.bfloat16 if config.precision == "bf16" else None
    task_loss = Classifier(network.to(device), kernels, None, product, source.objective, way, strays)
    with one_thread():
        weights = task_loss.weights
    n_classes = source.n_classes("meta_train", config.train_rotation)
    extra = extra_weights(config.algo, algorithm, weights, n_classes)
    own = {name: w.detach().clone() for name, w in extra.items()}
    return task_loss, {name: w.to(device) for name, w in {**weights, **own}.items()}


_LIKE = "torch.full_like(w, value), torch.zeros_like(w), w.new_full(shape, value)"


def extra_weights(algo: str, algorithm: MetaAlgorithm, network: Weights, n_classes: int) -> Weights:
    """Return what an algorithm learns beside the network's weights, in meta-training on that many classes.

    Raises:
        BenchError: names the algorithm, the tensor and what would be right.
    """
    with blaming(f"algorithm {algo!r}"):
        made = {
            "extra_weights": algorithm.extra_weights(network),
            "class_weights": algorithm.class_weights(network, n_classes),
        }
    for method, found in made.items():
        if not isinstance(found, Mapping):
            got = type(found).__name__
            raise BenchError(f"algorithm {algo!r}: {method} returned {got}; return a dict of tensors by name")
    extra = {**made["extra_weights"], **made["class_weights"]}
    dtype = next(iter(network.values())).dtype
    for name, w in extra.items():
        what = f"algorithm {algo!r}: extra weight {name!r}"
        if "/" not in str(name):
            raise BenchError(f'{what} has no slash in its name, which keeps the inner loop away; call it "rate/{name}"')
        if name in network:
            raise BenchError(f"{what} is the name of a weight of the network; choose another")
        if not isinstance(w, Tensor):
            raise BenchError(f"{what} is {type(w).__name__}; make it a tensor: {_LIKE}")
        if w.dtype != dtype:
            raise BenchError(
                f"{what} is {w.dtype} where the network's weights are {dtype}; make it from a weight w of"
                f" the network: {_LIKE}"
            )
    return extra
