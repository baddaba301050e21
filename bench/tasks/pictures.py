"""A picture of any kind, as people have them, made into one of a data set's: uint8, of its channels and size."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.api import DataError
from bench.system.untrusted import open_regular, read_regular

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
LARGEST = 2**29  # bytes of a file

warnings.filterwarnings("ignore", module=r"PIL\.")  # of large pictures and odd tags; its errors stand

_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits, with those that begin so
RULE = (
    "first frame; turned as EXIF says; more than 8 bits stretched from its least to its greatest value; transparent on"
    " black or white, whichever shows more"
)
"""What happens to every picture, as pipelines say it; any change of the code must change it."""


@dataclass(frozen=True)
class Reading:
    """How a picture of any kind becomes one of a data set's, uint8 ``[channels, height, width]``.

    Attributes:
        channels: 1, grey, or 3, red, green and blue.
        fit: ``crop`` scales the picture to fill the frame and cuts off what stands out; ``pad`` shows all of it on a
            ground of its own; ``stretch`` gives up its proportions.
        ink: a drawing: brought to light ink on black at full contrast, and padded.
    """

    channels: int
    height: int
    width: int
    fit: Literal["crop", "pad", "stretch"] = "crop"
    ink: bool = False


def read_picture(path: Path, reading: Reading) -> NDArray[np.uint8]:
    """Return the picture of a file as ``reading`` says, uint8 ``[channels, height, width]``.

    Raises:
        DataError: the file is none that can be read, or is blank; names it.
    """
    image = opened(path, None if reading.ink else max(reading.height, reading.width))
    if reading.ink:
        image = image.convert("L")
        if np.median(np.asarray(image)) > 127:
            image = ImageOps.invert(image)
        image = ImageOps.autocontrast(image)
    elif reading.channels == 1:
        image = image.convert("L")
    pixels = np.asarray(_framed(image, reading))
    if (pixels == pixels[:1, :1]).all():
        raise DataError(f"{path}: is blank, every pixel the same; accepted: pictures that show something")
    pixels = np.atleast_3d(pixels).transpose(2, 0, 1)
    return np.array(np.broadcast_to(pixels, (reading.channels, reading.height, reading.width)), order="C")


def opened(path: Path, size: int | None = None) -> Image.Image:
    """Return a picture as Pillow's mode ``L`` if its file is grey, else ``RGB``, upright and without transparency.

    Args:
        size: what it will be shrunk to; JPEG decoders may leave out what that has no use for.
    Raises:
        DataError: the file is none that can be read; names it.
    """
    try:
        data = read_regular(path, LARGEST)
        with Image.open(io.BytesIO(data)) as image:
            if size is not None:
                image.draft(None, (2 * size, 2 * size))
            return _plain(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is no picture of a kind that Pillow knows") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, zlib.error, MemoryError and more
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: is no picture that can be read ({reason})") from error


def picture_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of a picture as its file says, None of one that cannot be read."""
    try:
        with os.fdopen(open_regular(path), "rb") as file, Image.open(file) as image:
            return image.size
    except Exception:  # decoders raise anything; whoever reads the picture says what is wrong
        return None


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith(_DEEP):
        return _stretched(image)
    if image.has_transparency_data:
        return _on_a_ground(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _stretched(image: Image.Image) -> Image.Image:
    """Return a picture of 16 or 32 bits or of fractions with its least value black and its greatest white."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    least, greatest = values.min(), values.max()
    return Image.fromarray(np.rint((values - least) * (255 / max(greatest - least, 1e-300))).astype(np.uint8))


def _on_a_ground(image: Image.Image) -> Image.Image:
    """Return a picture with transparent parts on white or black, on whichever what is drawn differs more from it."""
    pixels = np.asarray(image).astype(np.float32)
    opaque = pixels[..., 3] / 255
    light = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    ground = "white" if (opaque * (255 - light)).sum() >= (opaque * light).sum() else "black"
    flat = Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")
    return flat.convert("L") if is_grey(flat) else flat


def is_grey(image: Image.Image) -> bool:
    """Whether a picture has no colour: red, green and blue are the same everywhere."""
    if image.mode == "L":
        return True
    red, green, blue = np.moveaxis(np.asarray(image), -1, 0)
    return bool((red == green).all() and (green == blue).all())


def _framed(image: Image.Image, reading: Reading) -> Image.Image:
    size = (reading.width, reading.height)
    if reading.ink:
        return ImageOps.pad(image, size, Image.Resampling.BOX, color=0)
    if reading.fit == "pad":
        corner: Any = image.getpixel((0, 0))
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=corner)
    if reading.fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    return image.resize(size, Image.Resampling.BILINEAR)
