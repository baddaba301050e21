"""One run's training on toy data."""

import contextlib

import torch

from bench.api import Episode
from bench.network.build import build
from bench.registry import create_algorithm
from bench.settings.config import RunConfig
from bench.tasks.drawing import ImagePool
from bench.tasks.stream import TaskStream
from bench.training.capture import Replay
from bench.training.train import Training

CPU = torch.device("cpu")


def make_training(images, tmp_path, name="reptile", hyper=None, device=CPU, recorder=None, card_runs=1, **settings):
    settings = {"meta_steps": 6, "meta_batch": 5, "val_points": 2, "val_tasks": 10, "backbone": "one-layer"} | settings
    config = RunConfig(algo=name, dataset="toy", k_query=3, hyperparameters=hyper or {}, **settings)
    algorithm = create_algorithm(name, **config.hyperparameters)
    task_loss, slow = build(config, algorithm, images, device)
    train = TaskStream(ImagePool(images, "meta_train", "pooled", device), Episode(5, 1, 3), config.seed)
    val = TaskStream(ImagePool(images, "meta_val", "none", device), Episode(5, 1, 1), config.seed)
    return Training(config, algorithm, task_loss, slow, train, val, tmp_path / "checkpoint.pt", recorder, card_runs)


ADAM = {"inner_optimizer": "adam", "inner_lr": 1e-3}


class Stopped(Exception):
    pass


def stop_after(n):
    """An ``advance`` that stops the run after its n-th meta-step."""
    seen = iter(range(n))

    def advance(steps):
        if steps and next(seen, None) is None:
            raise Stopped

    return advance


class FakeRecorder:
    """Records the step and replays it, as a CUDA graph does; what the host holds is refused while it runs."""

    def __init__(self, training=None):
        self.replays = 0
        self.frozen = False

    @contextlib.contextmanager
    def warming(self):
        yield

    def capture(self, step):
        hold, window = step.window.hold, step.window

        def refused(*args):
            assert not self.frozen, "a replay cannot draw tasks"
            hold(*args)

        window.hold = refused

        def run():
            self.replays += 1
            self.frozen = True
            step()
            self.frozen = False

        return Replay(run)


def same(a, b):
    """Whether two runs ended alike to the last bit."""
    outcome = [[(p.meta_step, p.tasks_seen, p.val_acc, p.query_loss) for p in t.progress.curve] for t in (a, b)]
    pairs = [(a.progress.slow, b.progress.slow), (a.progress.carry, b.progress.carry)]
    return outcome[0] == outcome[1] and all(torch.equal(x[n], y[n]) for x, y in pairs for n in x)
