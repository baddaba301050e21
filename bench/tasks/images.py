"""Data sets of images: their classes held whole in memory, and the tasks of N classes drawn from them."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import SPLITS, BenchError, Episode, Objective, TaskSource
from bench.tasks.drawing import ImagePool
from bench.tasks.pictures import Reading

ROTATIONS = ("pooled", "per_class", "none")
_NAMED = 10  # classes in a line


class Classification(Objective):
    """Cross-entropy in nats to train on, the share of right answers to measure."""

    measure: ClassVar = "accuracy"
    kind: ClassVar = "acc"

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy of every example, ``[T, n]``, in nats."""
        return F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return 1 where the highest score is that of the right class, else 0, and NaN where a score is not finite.

        The highest of scores that ran away would be the first, which is right once in n_way times.
        """
        right = (outputs.argmax(dim=-1) == y).double()
        return right.masked_fill(~outputs.isfinite().all(dim=-1), math.nan)


@dataclass(frozen=True)
class ImageSet(TaskSource):
    """Every class of a data set, held whole in memory.

    Args:
        images: uint8, one tensor ``[classes, images_per_class, H, W]`` for grey pictures and
            ``[classes, images_per_class, C, H, W]`` for C = 1 or 3 channels; or a sequence of such tensors
            ``[images, (C,) H, W]``, one per class, where classes differ in their number of images. Drawn characters
            have ink 255 on 0.
        class_names: one per class, each different.
        splits: maps each of SPLITS to the classes that it owns.
        pipeline: how the pixels were made.
        sha256: a hash over ``images``.
        rotations: those of ROTATIONS that make sense. A protocol turns pictures into classes only where its rotation
            is among them: a turned character is another character, a turned photograph is the same thing. Left out,
            pictures are not turned, and the command says so.
        reading: how a picture of the user's becomes one of these. Unless given, of one channel and among ``rotations``
            more than ``none``, a drawing; else a photograph.
        notes: lines that the user should read before anything is trained.
    Raises:
        BenchError: names what is wrong and what is accepted.
    """

    name: str
    images: Tensor | Sequence[Tensor]
    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[int, ...]]
    pipeline: str
    sha256: str
    rotations: tuple[str, ...] | None = None
    reading: Reading | None = None
    notes: tuple[str, ...] = ()
    pixels: Tensor = field(init=False, repr=False)
    """All images, uint8 ``[images, C, H, W]``, class after class."""
    counts: tuple[int, ...] = field(init=False, repr=False)
    """How many images each class has."""
    starts: tuple[int, ...] = field(init=False, repr=False)
    """Where each class begins among ``pixels``."""
    objective: ClassVar[Objective] = Classification()

    def __post_init__(self) -> None:
        pixels, counts = self._flat()
        made = {"pixels": pixels, "counts": counts, "starts": tuple(itertools.accumulate(counts, initial=0))[:-1]}
        for name, value in made.items():
            object.__setattr__(self, name, value)
        if not isinstance(self.images, Tensor):  # views, so that nothing is held twice
            object.__setattr__(self, "images", tuple(pixels.split(list(counts))))
        self._check_classes()
        self._check_pictures()
        if self.reading is None:
            channels, height, width = self.shape
            object.__setattr__(self, "reading", Reading(channels, height, width, ink=channels == 1 and self._turned))

    def _flat(self) -> tuple[Tensor, tuple[int, ...]]:
        """Return all images ``[images, C, H, W]`` and how many each class has, refusing what are no images."""
        given: Any = self.images
        classes = [given] if isinstance(given, Tensor) else list(given)
        whole = isinstance(given, Tensor)
        for c, images in enumerate(classes):
            what = "images are" if whole else f"images of class {c} are"
            if not isinstance(images, Tensor):
                raise self._refusal(f"{what} {type(images).__name__}", "tensors, torch.from_numpy(array) of an array")
            if images.dtype != torch.uint8:
                remedy = "(x * 255).round().to(torch.uint8) of values in 0..1" if images.is_floating_point() else ""
                raise self._refusal(f"{what} {images.dtype}", f"uint8, 0 to 255{remedy and f'; {remedy}'}")
            shape, lead = tuple(images.shape), 2 if whole else 1
            if len(shape) - lead not in (2, 3) or (len(shape) - lead == 3 and shape[-3] not in (1, 3)) or 0 in shape:
                first = "classes, images_per_class" if whole else "images"
                turned = "; channels come first: x.movedim(-1, -3)" if shape[-1] in (1, 3) else ""
                raise self._refusal(
                    f"{what} of shape {shape}", f"[{first}, H, W] or [{first}, C, H, W] with C 1 or 3{turned}"
                )
        if not classes:
            raise self._refusal("there is no class", "one tensor of images per class")
        if whole:
            flat, counts = given.flatten(0, 1), (given.shape[1],) * given.shape[0]
        else:
            shapes = {tuple(images.shape[1:]) for images in classes}
            if len(shapes) > 1:
                raise self._refusal(f"images have the shapes {sorted(shapes)}", "one shape for all")
            flat, counts = torch.cat(classes), tuple(len(images) for images in classes)
        return flat if flat.dim() == 4 else flat[:, None], counts

    def _check_classes(self) -> None:
        count = len(self.counts)
        if len(self.class_names) != count or len(set(self.class_names)) != count:
            raise self._refusal(
                f"there are {count} classes of images and {len(set(self.class_names))} different names of"
                f" {len(self.class_names)}",
                "a name for every class, each different, in the order of images",
            )
        if set(self.splits) != set(SPLITS):
            raise self._refusal(f"splits are {', '.join(map(str, self.splits)) or 'none'}", ", ".join(SPLITS))
        owner: dict[int, str] = {}
        for split in SPLITS:
            if not self.splits[split]:
                raise self._refusal(f"{split} has no class", f"some of the {count} classes for each split")
            for c in self.splits[split]:
                if not 0 <= c < count:
                    raise self._refusal(f"{split} names class {c}", f"0 to {count - 1}")
                if c in owner:
                    where = f"{owner[c]} and {split}" if owner[c] != split else f"{split} twice"
                    raise self._refusal(
                        f"class {c} ({self.class_names[c]}) is in {where}",
                        "three sets without a common class: a test class must not be met in training",
                    )
                owner[c] = split

    def _check_pictures(self) -> None:
        if strange := [r for r in self.rotations or () if r not in ROTATIONS]:
            raise self._refusal(f"rotation {strange[0]!r} is unknown", ", ".join(ROTATIONS))
        _, height, width = self.shape
        if height != width and self._turned:
            raise self._refusal(f"pictures of {height} x {width} cannot be turned", 'rotations=("none",), or squares')
        for place in blank(self.pixels):
            c = max(c for c, start in enumerate(self.starts) if start <= place)
            raise self._refusal(
                f"image {place - self.starts[c]} of class {c} ({self.class_names[c]}) is blank, every pixel"
                f" {int(self.pixels[place].flatten()[0])}",
                "pictures that show something; leave it out, or draw ink 255 on 0",
            )

    @property
    def _turned(self) -> bool:
        return bool({*(self.rotations or ())} - {"none"})

    def _refusal(self, found: str, accepted: str) -> BenchError:
        return BenchError(f"{self.name}: {found}; accepted: {accepted}")

    def of_class(self, c: int) -> Tensor:
        """Return the images of a class, uint8 ``[images, C, H, W]``."""
        return self.pixels[self.starts[c] : self.starts[c] + self.counts[c]]

    @property
    def split_sha256(self) -> str:
        """Return a hash over the names of the classes of each split."""
        lines = [f"{split} {self.class_names[place]}" for split in SPLITS for place in self.splits[split]]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width) of an image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def remarks(self, split: str, episode: Episode) -> list[str]:
        """Return a line that names the classes of a split that have too few images for an episode, if there are any."""
        least = episode.k_shot + episode.k_query
        few = [f"{self.class_names[c]} ({self.counts[c]})" for c in self.splits[split] if self.counts[c] < least]
        if not few:
            return []
        more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
        return [
            f"{self.name}/{split}: {len(few)} of {len(self.splits[split])} classes have fewer images than the {least}"
            f" of a task and are left out (a smaller k_query keeps more): {', '.join(few[:_NAMED])}{more}"
        ]

    def n_classes(self, split: str, rotation: str) -> int:
        """Return how many classes a split has, images that are turned counted apart."""
        return len(self.splits[split]) * (1 if rotation == "none" else 4)

    def trained_on(self, classes: int | None) -> ImageSet:
        """Return the same images with so many classes in meta-train, the first by a hash of their names.

        Raises:
            BenchError: there are not so many.
        """
        if classes is None:
            return self
        owned = self.splits["meta_train"]
        if not 1 <= classes <= len(owned):
            raise BenchError(
                f"train_classes {classes}: {self.name}/meta_train has {len(owned)} classes; accepted: 1 to {len(owned)}"
            )
        kept = sorted(owned, key=lambda c: _hashed(self.class_names[c]))[:classes]
        return replace(self, splits={**self.splits, "meta_train": tuple(sorted(kept))})

    def check(self, split: str, rotation: str, episode: Episode) -> None:
        """Refuse an episode that the classes of a split cannot fill; those with too few images take no part.

        Raises:
            BenchError: more ways than classes, more images per class than there are, pictures that cannot be turned.
        """
        pool, wanted = f"{self.name}/{split}", episode.k_shot + episode.k_query
        _, height, width = self.shape
        if rotation != "none" and height != width:
            raise BenchError(f"rotation {rotation!r}: {pool} has pictures of {height} x {width}; accepted: none")
        turns = 4 if rotation == "pooled" else 1
        counts = sorted((self.counts[c] for c in self.splits[split]), reverse=True)
        ways = sum(count >= wanted for count in counts) * turns
        if 2 <= episode.n_way <= ways:
            return
        needed = -(-episode.n_way // turns)  # classes, each of which every turn makes another of
        most = counts[needed - 1] if 2 <= episode.n_way <= len(counts) * turns else 0
        if counts[0] == counts[-1] and wanted > counts[0]:
            raise BenchError(
                f"k_shot {episode.k_shot} + k_query {episode.k_query} is more than the {counts[0]} images per class"
                f" of {pool}; accepted: a sum of at most {counts[0]}"
            )
        if ways == len(counts) * turns:
            raise BenchError(f"n_way {episode.n_way}: {pool} has {ways} classes; accepted: 2 to {ways}")
        possible = (f"2 to {ways}" * (ways >= 2), f"a sum of at most {most} (--k-query)" * (most >= 2))
        raise BenchError(
            f"n_way {episode.n_way}: {pool} has {ways} classes of the {wanted} images that k_shot {episode.k_shot} +"
            f" k_query {episode.k_query} take; {len(counts) - ways // turns} have fewer; accepted: "
            + (" or ".join(filter(None, possible)) or "other data")
        )

    def pool(self, split: str, rotation: str, device: torch.device) -> ImagePool:
        """Return the images of one of SPLITS on the device."""
        return ImagePool(self, split, rotation, device)


def _hashed(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def blank(pixels: Tensor, at_once: int = 4096) -> Iterator[int]:
    """Yield the places of the images of ``[images, ...]`` that show nothing: every channel is one value throughout."""
    for start in range(0, len(pixels), at_once):
        part = pixels[start : start + at_once].flatten(2)
        same = (part.amin(dim=2) == part.amax(dim=2)).all(dim=1)  # comparing pixel by pixel took 15 times as long
        yield from (start + place for place in same.nonzero().flatten().tolist())
