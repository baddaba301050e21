"""Sine waves for tests: tasks in float64, and a small network with its loss on them."""

import torch
import torch.nn.functional as F

from bench.api import Episode
from bench.network.build import build_network
from bench.network.model import Classifier
from bench.registry import DATASETS, create_backbone
from bench.tasks.stream import TaskStream

CPU = torch.device("cpu")
WAVES = DATASETS.get("sine")().load(None, None)
EPISODE = Episode(n_way=1, k_shot=10, k_query=40)


class DoubleStream(TaskStream):
    dtype = torch.float64


def make_stream(split="meta_train", seed=0, episode=EPISODE, rotation="none", kind=DoubleStream):
    return kind(WAVES.pool(split, rotation, CPU), episode, seed)


def loss_on_waves(activation):
    """The loss of tasks of waves on a network of sine-mlp, in float64."""
    network = build_network(create_backbone("sine-mlp", activation=activation), WAVES.shape, 1, seed=0).double()
    return Classifier(network, objective=WAVES.objective)


def squared(network, x, y):
    return F.mse_loss(network(x)[:, 0], y)
