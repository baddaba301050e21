"""Data sets that break their contract, each a change of the toy one: what ``bench.check`` must find, and where."""

import dataclasses
import random
from typing import ClassVar

import torch
from places import TOY

from bench.api import Dataset
from bench.tasks.drawing import ImagePool
from bench.tasks.images import Classification, ImageSet
from tests.plugins.wrong import caught

DATASETS: dict[type, tuple[str, str]] = {}


def toy(**changes):
    """Return the toy images, some fields changed."""
    from bench.registry import load_plugin

    cls, images = changes.pop("cls", ImageSet), load_plugin(TOY).toy_images()
    given = {field.name: getattr(images, field.name) for field in dataclasses.fields(images) if field.init}
    return cls(**{**given, "name": "wrong", **changes})


class Wrong(Dataset):
    paper = "none"
    licence = "none needed"

    def load(self, root, cache):
        return toy()


@caught(DATASETS, "declared", "under which licence")
class NoLicence(Wrong):
    licence = ""


@caught(DATASETS, "loads", "is registered as 'wrong', but what it loads is named 'toy'")
class OtherName(Wrong):
    def load(self, root, cache):
        return toy(name="toy")


@caught(DATASETS, "loads", "a second load gives data with another sha256")
class NewEveryTime(Wrong):
    def load(self, root, cache):
        return toy(sha256=str(random.random()))


@caught(DATASETS, "loads", "class 0 (class 0) is in meta_train and meta_test")
class SharedClass(Wrong):
    def load(self, root, cache):
        splits = toy().splits
        return toy(splits={**splits, "meta_test": (*splits["meta_test"], splits["meta_train"][0])})


@caught(DATASETS, "loads", "different names of 60")
class SameNames(Wrong):
    def load(self, root, cache):
        return toy(class_names=("x",) * 60)


@caught(DATASETS, "loads", "image 3 of class 2 (class 2) is blank")
class BlankImage(Wrong):
    def load(self, root, cache):
        images = toy().images.clone()
        images[2, 3] = 0
        return toy(images=images)


@caught(DATASETS, "loads", "images are torch.float32")
class FloatImages(Wrong):
    def load(self, root, cache):
        return toy(images=toy().images / 255)


class Odd(ImageSet):
    """Brings a pool of another class."""

    made_of: ClassVar = ImagePool

    def pool(self, split, rotation, device):
        return self.made_of(self, split, rotation, device)


class RandomPool(ImagePool):
    def examples(self, parts, episode, dtype):
        (x, y), query = super().examples(parts, episode, dtype)
        return (x * torch.rand(()), y), query


class UnscaledPool(ImagePool):
    def examples(self, parts, episode, dtype):
        (x, y), query = super().examples(parts, episode, dtype)
        return (x * 255, y), query


class SameLabelPool(ImagePool):
    def examples(self, parts, episode, dtype):
        (x, y), query = super().examples(parts, episode, dtype)
        return (x, torch.zeros_like(y)), query


class BatchPool(ImagePool):
    def _draw(self, bits, episode):
        return super()._draw(lambda purpose, n: bits(purpose, n).sort(dim=0).values, episode)


class WaitingPool(ImagePool):
    def examples(self, parts, episode, dtype):
        assert parts[0].max().item() >= 0
        return super().examples(parts, episode, dtype)


def pooled(check, words, pool):
    """File a data set whose tasks come from another pool."""
    source = type(f"Odd{pool.__name__}", (Odd,), {"made_of": pool})
    cls = type(f"With{pool.__name__}", (Wrong,), {"load": lambda self, root, cache: toy(cls=source)})
    DATASETS[cls] = check, words


pooled("same-for-all", "other tasks the second time", RandomPool)
pooled("same-for-all", "task 3 depends on which other tasks are drawn with it", BatchPool)
pooled("examples", "pixels from", UnscaledPool)
pooled("examples", "labels are not 0 to 4, 1 of each", SameLabelPool)
pooled("captures", "examples() reads a value back to the host", WaitingPool)


def measured(words, **wrong):
    """File a data set whose objective has another loss or score."""
    objective = type("Measured", (Classification,), {n: staticmethod(f) for n, f in wrong.items()})()
    source = type("OddlyMeasured", (ImageSet,), {"objective": objective})
    DATASETS[type("Measures", (Wrong,), {"load": lambda self, root, cache: toy(cls=source)})] = "measures", words


CLASSES = Classification()
measured("loss returns ()", loss=lambda outputs, y: CLASSES.loss(outputs, y).mean())
measured("loss returns values without a gradient", loss=lambda outputs, y: CLASSES.loss(outputs, y).detach())
measured("score returns torch.float32 (3, 10)", score=lambda outputs, y: CLASSES.score(outputs, y).float())


class AcceptsAll(ImageSet):
    def check(self, split, rotation, episode):
        pass


@caught(DATASETS, "refuses", "accepts 1000000-way 1-shot tasks")
class NeverRefuses(Wrong):
    def load(self, root, cache):
        return toy(cls=AcceptsAll)
