"""CPU time and peak bytes of tensors of MAML's meta-gradient by each ``unroll``, in one process, in turns.

``python tests/unroll_cost.py --tasks 8 --filters 32 --steps 1,5,10,20,50 --rounds 3`` prints a table. Times are of the
process's own CPU, on one thread, so that other work on the machine disturbs them less; the ratio to ``higher`` is the
median of those of the rounds.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from algorithms.maml import Unroll
from bench.check.trial import image_tasks
from bench.network.build import build_network
from bench.network.model import Classifier
from bench.registry import create_algorithm, create_backbone
from bench.training.memory import MIB, peak_of_tensors

WAYS = Unroll.__args__


def main():
    p = argparse.ArgumentParser(description=__doc__)
    for name, default in (("tasks", 8), ("filters", 32), ("k-query", 15), ("rounds", 3)):
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--steps", default="1,5,10,20,50")
    args = p.parse_args()
    torch.set_num_threads(1)
    network = build_network(create_backbone("conv4", filters=args.filters), (1, 28, 28), 5, 0)
    task_loss, rng = Classifier(network), torch.Generator().manual_seed(0)
    tasks = image_tasks(rng, args.tasks, k_query=args.k_query, dtype=torch.float32)
    print(f"5-way 1-shot, {args.k_query} query images per class, {args.tasks} tasks, {args.filters} filters")
    print("| steps |", " | ".join(f"{way}, s | of higher | MiB | of higher" for way in WAYS), "|")
    print("| --- |" + " --- |" * 4 * len(WAYS))
    for steps in map(int, args.steps.split(",")):

        def work(way, steps=steps):
            algorithm = create_algorithm("maml", inner_lr=0.1, inner_steps=steps, unroll=way)
            return algorithm.meta_grad(task_loss, task_loss.weights, tasks)

        def timed(way):
            began = time.process_time()
            work(way)
            return time.process_time() - began

        for way in WAYS:
            work(way)
        peaks = {way: peak_of_tensors(lambda way=way: work(way), torch.device("cpu")) / MIB for way in WAYS}
        rounds = [{way: timed(way) for way in WAYS} for _ in range(args.rounds)]
        cells = [
            f"{statistics.median(r[way] for r in rounds):.3f} |"
            f" {statistics.median(r[way] / r['higher'] for r in rounds):.2f} |"
            f" {peaks[way]:.0f} | {peaks[way] / peaks['higher']:.2f}"
            for way in WAYS
        ]
        print(f"| {steps} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
