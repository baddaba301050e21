"""A meta-gradient of MAML beside a plain loop over tasks: ``python -m tests.deep_networks NETWORK SIDE TASKS ROUNDS``.

Colour images, 5-way 1-shot, 9 query images a class, 5 inner steps, float32, as many tasks at once as a run would hold.
Both take the same tasks in turn; the loop is that of tests/plain_loop.py, through the module's own forward. Told are
medians of wall-clock time, their ratio, and the process's peak size above its start. That both give one gradient is
tested in float64 (tests/network/test_layers.py): in float32 it says little of deep networks, where a change of the
images by 1e-7 moves a second-order gradient of ResNet-12 by up to a third, of ours and of the loop alike.
"""

import os
import resource
import statistics
import sys
import time

import torch

from bench.api import Episode, TaskBatch
from bench.check.device import noise
from bench.network.build import build
from bench.registry import create_algorithm
from bench.settings.config import RunConfig
from bench.system.start import worker_environment
from bench.tasks.images import ImageSet
from bench.tasks.stream import TaskStream
from bench.training.chunks import default_chunk
from tests.plain_loop import meta_gradient

STEPS, LR = 5, 0.01


def main(name: str, side: int, n_tasks: int, rounds: int) -> None:
    """Print the line of one network."""
    config = RunConfig(algo="maml", backbone=name, hyperparameters={"inner_lr": LR, "inner_steps": STEPS})
    maml, grey = create_algorithm("maml", **config.hyperparameters), noise(size=side, per_class=10)
    colour = grey.images[:, :, None].repeat(1, 1, 3, 1, 1)
    source = ImageSet("noise", colour, grey.class_names, grey.splits, grey.pipeline, grey.sha256)
    cpu = torch.device("cpu")
    stream = TaskStream(source.pool("meta_train", "none", cpu), Episode(5, 1, 9), 0)
    task_loss, slow = build(config, maml, source, cpu)
    chunk = default_chunk(stream, n_tasks, task_loss, slow)
    tasks = stream.batch(0, n_tasks)

    def ours():
        parts = [stream.batch(start, chunk) for start in range(0, n_tasks, chunk)]
        found = [maml.meta_grad(task_loss, slow, TaskBatch(p.support, p.query)).grads for p in parts]
        return {n: sum(g[n] for g in found) / len(found) for n in slow}

    def plain():
        return meta_gradient(task_loss.network, tasks, LR, STEPS, second_order=True)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took, peak = {ours: [], plain: []}, {}
    for _ in range(rounds):
        for work in (ours, plain):
            began = time.perf_counter()
            work()
            took[work].append(time.perf_counter() - began)
            peak.setdefault(work, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    ratio = statistics.median(p / o for o, p in zip(took[ours], took[plain]))
    ours_s, plain_s = (statistics.median(took[work]) for work in (ours, plain))
    print(
        f"{name} {side}: ours {ours_s:.1f} s, {chunk} of {n_tasks} tasks at once, up to {peak[ours]:,.0f} MiB; plain"
        f" {plain_s:.1f} s; ratio {ratio:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:  # as runs have it; the C library reads it as a process begins
        os.execve(sys.executable, sys.orig_argv, os.environ | worker_environment())
    torch.set_num_threads(2)
    main(sys.argv[1], *map(int, sys.argv[2:]))
