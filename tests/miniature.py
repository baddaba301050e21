"""A miniature of Omniglot: three and two characters of real alphabets, in any layout."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.omniglot import Omniglot


def png(pixels, mode="1"):
    buffer = io.BytesIO()
    Image.fromarray(np.where(pixels, 255, 0).astype(np.uint8)).convert(mode, dither=0).save(buffer, "PNG")
    return buffer.getvalue()


def picture(seed, size=105):
    """A picture of blank paper (True) with a third of it inked."""
    return np.random.default_rng(seed).random((size, size)) > 1 / 3


@dataclass
class Miniature:
    """Three and two characters, laid out like the two archives; ``files`` is what a damage test may change."""

    root: Path
    cache: Path
    files: dict[str, bytes]

    def archives(self, base=".", also=()):
        for half in ("images_background", "images_evaluation"):
            path = self.root / base / f"{half}.zip"
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in self.files.items():
                    if name.startswith(half):
                        archive.writestr(name, data)
                for name, data in also:
                    archive.writestr(name, data)
        return self

    def folders(self, base="."):
        for name, data in self.files.items():
            path = self.root / base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return self

    def lay(self, place):
        """Write every file where ``place`` says for its name; 'x.zip!name' is a member of an archive."""
        archives = {}
        for name, data in self.files.items():
            archive, inside, member = place(name).partition("!")
            path = self.root / archive
            path.parent.mkdir(parents=True, exist_ok=True)
            if inside:
                archives.setdefault(path, []).append((member, data))
            else:
                path.write_bytes(data)
        for path, members in archives.items():
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in members:
                    archive.writestr(name, data)
        return self

    def load(self):
        return Omniglot().load(self.root, self.cache)


NAMES = {"images_background": ["Futurama/character01", "Futurama/character02", "Greek/character01"],
         "images_evaluation": ["Angelic/character01", "Tengwar/character25"]}  # fmt: skip
FIRST = "images_background/Futurama/character01/0000_01.png"
