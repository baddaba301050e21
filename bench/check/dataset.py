"""The checks of a data set: what it declares, that its tasks are the same for everybody, what their examples hold."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.api import SPLITS, BenchError, DataMissing, Dataset, Episode, TaskBatch, TaskSource
from bench.check.device import HostSync, refused
from bench.check.settings import settings
from bench.check.verdicts import Broken, Check, NotAsked, where
from bench.tasks.images import ImageSet
from bench.tasks.stream import TaskStream

EPISODES = (Episode(5, 1, 2), Episode(2, 1, 1), Episode(1, 5, 5))  # the first that the data accepts; 1 way: regression
TASKS = 32
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Data:
    """A data set under the checks."""

    name: str
    cls: type[Dataset]
    root: Path = Path("data")

    @functools.cached_property
    def loaded(self) -> tuple[TaskSource, TaskSource]:
        """Return what two calls of ``load`` return; a failure is judged by the check ``loads``."""
        with tempfile.TemporaryDirectory() as cache:
            return self.cls().load(self.root, Path(cache)), self.cls().load(self.root, Path(cache))

    @property
    def source(self) -> TaskSource:
        """Return what was loaded."""
        return self.loaded[0]

    @functools.cached_property
    def episode(self) -> Episode:
        """Return a small episode that the data accepts in every split."""
        refusals = []
        for episode in EPISODES:
            try:
                for split in SPLITS:
                    self.source.check(split, "none", episode)
            except BenchError as error:
                refusals.append(str(error))
                continue
            return episode
        raise Broken(
            f"refuses 5-way 1-shot, 2-way 1-shot and a regression on 5 points: {refusals[0]}",
            "check(split, rotation, episode) raises a BenchError only for what cannot be drawn; all of"
            f" {', '.join(SPLITS)} need enough classes and examples",
        )

    def stream(self, split: str = "meta_train", source: TaskSource | None = None) -> TaskStream:
        """Return a new stream of small tasks."""
        pool = (source or self.source).pool(split, "none", CPU)
        return TaskStream(pool, self.episode, seed=0)


def declared(subject: Data) -> str:
    """Name, paper, licence."""
    settings(subject.name, subject.cls)
    if not subject.cls.licence:
        raise Broken(
            "does not say under which licence its data may be used",
            'add licence = "MIT", or where it comes from and what its owner allows; --list shows it',
        )
    return f"licence: {subject.cls.licence}"


def loads(subject: Data) -> str:
    """Twice the same, under the registered name; what images must be, ``ImageSet`` itself asks."""
    try:
        first, again = subject.loaded
    except DataMissing as error:
        raise NotAsked(f"no data here: {error}") from error
    except BenchError as error:
        found, _, accepted = str(error).partition("; accepted: ")
        raise Broken(found, accepted or "load returns what is there, checked") from error
    if not isinstance(first, TaskSource):
        raise Broken(f"load returned {type(first).__name__}", "return a TaskSource: of images, a bench.tasks.ImageSet")
    if first.name != subject.name:
        raise Broken(
            f"is registered as {subject.name!r}, but what it loads is named {first.name!r}",
            "give both the same name: tables show the second, and tasks are drawn by it",
        )
    if not (first.pipeline and first.sha256):
        raise Broken("pipeline or sha256 is empty", "say how the data was made, and give a hash over all of it")
    if first.sha256 != again.sha256:
        raise Broken(
            "a second load gives data with another sha256",
            "make it from a seeded generator of its own, or from files in sorted order",
        )
    classes = ", ".join(f"{len(first.splits[s])} {s[5:]}" for s in SPLITS) if isinstance(first, ImageSet) else ""
    return f"inputs of shape {tuple(first.shape)}, measured by {first.objective.measure}" + (
        f"; classes: {classes}" if classes else ""
    )


def same_for_all(subject: Data) -> str:
    """Task i, whatever was drawn before, in whatever batch, from whichever load."""
    stream = subject.stream()
    whole = stream.batch(0, TASKS)
    remedy = (
        "make a task of bits(purpose, n) alone (bench.tasks.counter turns them into choices), each row by itself:"
        " no torch.rand, no state kept between calls"
    )
    if not _same(whole, subject.stream().batch(0, TASKS)):
        raise Broken("the same stream gives other tasks the second time", remedy)
    if not _same(whole, subject.stream(source=subject.loaded[1]).batch(0, TASKS)):
        raise Broken("a second load gives other examples under the same sha256", "see the check 'loads'")
    other = subject.stream()
    numbers = torch.tensor([7, 3])
    rows = other.draw(numbers).rows
    if not torch.equal(rows, stream.draw(torch.arange(8)).rows[numbers]):
        raise Broken("task 3 depends on which other tasks are drawn with it", remedy)
    if len({tuple(row) for row in stream.draw(torch.arange(TASKS)).rows.tolist()}) == 1:
        raise Broken(f"{TASKS} tasks are all the same one", remedy)
    if torch.equal(rows, subject.stream("meta_test").draw(numbers).rows) and not isinstance(subject.source, ImageSet):
        raise Broken("meta_test draws the very tasks of meta_train", "give each pool a name with its split (TaskPool)")
    return f"task i depends on i alone; hash {stream.digest(TASKS)[:12]}"


def _same(a: TaskBatch, b: TaskBatch) -> bool:
    pairs = ((a.support.x, b.support.x), (a.support.y, b.support.y), (a.query.x, b.query.x), (a.query.y, b.query.y))
    return all(torch.equal(p, q) for p, q in pairs)


def examples(subject: Data) -> str:
    """Shapes, types, ranges, labels, in every split."""
    e = subject.episode
    classes = subject.source.objective.kind == "acc"
    for split in SPLITS:
        tasks = subject.stream(split).batch(0, TASKS)
        for what, part, k in (("support", tasks.support, e.k_shot), ("query", tasks.query, e.k_query)):
            n, at = e.n_way * k, f"{split}, {what}"
            shape = (TASKS, n, *subject.source.shape)
            if part.x.shape != shape or part.y.shape != (TASKS, n):
                raise Broken(
                    f"{at}: x {tuple(part.x.shape)}, y {tuple(part.y.shape)}",
                    f"for {TASKS} tasks, {e.n_way}-way, {k} examples each: x {shape}, y {(TASKS, n)}",
                )
            if part.x.dtype != torch.float32 or (part.y.dtype != (torch.int64 if classes else torch.float32)):
                raise Broken(
                    f"{at}: x is {part.x.dtype}, y is {part.y.dtype}",
                    "what is floating comes in the dtype that examples() is given; labels are int64",
                )
            if not part.x.isfinite().all() or not part.y.isfinite().all():
                raise Broken(f"{at}: a value is not finite", "leave out what is missing")
            if classes and len(subject.source.shape) == 3 and not 0 <= part.x.min() <= part.x.max() <= 1:
                raise Broken(f"{at}: pixels from {part.x.min():.3g} to {part.x.max():.3g}", "divide by 255: 0 to 1")
            counts = part.y[..., None].eq(torch.arange(e.n_way)).sum(dim=1) if classes else None
            if counts is not None and not (counts == k).all():
                raise Broken(f"{at}: labels are not 0 to {e.n_way - 1}, {k} of each", "one label per class and task")
    return "shapes, types, ranges and labels"


def refuses(subject: Data) -> str:
    """An episode that no data can fill."""
    for episode in (Episode(10**6, 1, 1), Episode(subject.episode.n_way, 10**6, 1)):
        try:
            subject.source.check("meta_train", "none", episode)
        except BenchError:
            continue
        raise Broken(
            f"accepts {episode.n_way}-way {episode.k_shot}-shot tasks",
            "check(split, rotation, episode) raises a BenchError that names the value and what is accepted",
        )
    return "a million ways or shots, before anything is trained"


def measures(subject: Data) -> str:
    """Loss and score of every example."""
    objective, tasks = subject.source.objective, subject.stream().batch(0, 3)
    y, size = tasks.query.y, subject.episode.n_way
    outputs = torch.randn(*y.shape, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss, score = objective.loss(outputs, y), objective.score(outputs.detach(), y)
    if loss.shape != y.shape:
        raise Broken(f"loss returns {tuple(loss.shape)}", f"return one loss per example, {tuple(y.shape)}")
    if not loss.requires_grad:
        raise Broken("loss returns values without a gradient", "no detach(), no .data, no numpy on the way")
    if score.shape != y.shape or score.dtype != torch.float64:
        raise Broken(
            f"score returns {score.dtype} {tuple(score.shape)}", f"return one per example, float64 {tuple(y.shape)}"
        )
    return "a differentiable loss and a float64 score per example"


def captures(subject: Data) -> str:
    """``examples`` runs in every meta-step."""
    pool, stream = subject.source.pool("meta_train", "none", CPU), subject.stream()
    parts: tuple[Tensor, ...] = pool.draw(stream.bits(torch.arange(3)), subject.episode).parts
    try:
        with refused():
            pool.examples(parts, subject.episode, torch.float32)
    except HostSync as wait:
        raise Broken(
            f"examples() reads a value back to the host: {wait} ({where(wait, type(pool))})",
            "do it in draw(), which runs for many tasks at once and outside of the captured step",
        ) from wait
    return "examples() reads no value back to the host"


_LOADED = ("loads",)
CHECKS: tuple[Check[Data], ...] = (
    Check("declared", "a name, where it comes from and its licence", declared),
    Check("loads", "twice the same data, under the registered name", loads),
    Check("same-for-all", "task i is a function of its number alone", same_for_all, _LOADED),
    Check("examples", "shapes, types, ranges and labels", examples, _LOADED),
    Check("refuses", "episodes that cannot be drawn", refuses, _LOADED),
    Check("measures", "loss and score of every example", measures, _LOADED),
    Check("captures", "examples() can be captured in a CUDA graph", captures, _LOADED),
)
