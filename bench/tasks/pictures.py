"""A picture of any kind, as people have them, made into one of a data set's: uint8, of its channels and size."""

from __future__ import annotations

import io
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.api import DataError
from bench.system.untrusted import open_regular, read_regular

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".tga"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".ico", ".pcx", ".avif", ".mpo"),
)
LARGEST = 2**29  # bytes of a file

warnings.filterwarnings("ignore", module=r"PIL\.")  # of large pictures and odd tags; its errors stand

_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits, with those that begin so
_OF_16_BITS = re.compile(r";16[BLN]")  # in what Pillow calls the pixels of a file: a colour, not a pixel, of 16 bits
_CUT = 0.1  # per cent of the values at each end that stretching does not look at: single broken pixels
_FLAT = 1e-3  # of the largest value: what spans no more shows nothing
_FAINT = 48  # grey levels from white, on average, that are too few to see
_SAME = 2  # grey levels within which a picture is blank
RULE = (
    "first frame; turned as EXIF says; more than 8 bits stretched, a thousandth cut off at both ends; transparent on"
    " white, or on black where white hides it"
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
    _refuse_blank(path, image)
    if reading.ink:
        image = image.convert("L")
        if np.median(_edge(np.asarray(image))) > 127:
            image = ImageOps.invert(image)
        image = ImageOps.autocontrast(image)
    elif reading.channels == 1:
        image = image.convert("L")
    image = _framed(image, reading)
    _refuse_blank(path, image)
    pixels = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    return np.array(np.broadcast_to(pixels, (reading.channels, reading.height, reading.width)), order="C")


def _refuse_blank(path: Path, image: Image.Image) -> None:
    bands: Any = image.getextrema()
    if all(most - least <= _SAME for least, most in (bands if isinstance(bands[0], tuple) else (bands,))):
        raise DataError(f"{path}: is blank, all of it one colour; accepted: pictures that show something")


def _edge(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the outermost pixels, which are paper where a drawing fills most of the rest."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def opened(path: Path, size: int | None = None) -> Image.Image:
    """Return a picture as Pillow's mode ``L`` if its file is grey, else ``RGB``, upright and without transparency.

    Args:
        size: the pixels that it will be shrunk to; JPEG decoders may leave out what that has no use for.
    Raises:
        DataError: the file is none that can be read; names it.
    """
    try:
        data = read_regular(path, LARGEST)
        with Image.open(io.BytesIO(data)) as image:
            if size is not None:
                image.draft(None, (2 * size, 2 * size))
            deep = image.mode.startswith(_DEEP) or any(_OF_16_BITS.search(str(tile[3])) for tile in image.tile)
            upright = ImageOps.exif_transpose(image)
            return _shallow(upright) if deep else _plain(upright)
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
    if image.has_transparency_data:
        return _on_a_ground(image.convert("RGBA"))
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _shallow(image: Image.Image) -> Image.Image:
    """Return a picture of 16 or 32 bits a colour, or of fractions, as one of 8 bits.

    Of several colours Pillow has read the high bytes, which are stretched as well.
    """
    if image.mode.startswith(_DEEP):
        return _stretched(np.asarray(image))
    clear = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = _stretched(np.asarray(image.convert("L" if image.mode == "LA" else "RGB")))
    if clear is not None:
        colours.putalpha(clear)
    return _plain(colours)


def _stretched(values: NDArray[Any]) -> Image.Image:
    """Return values ``[H, W]`` or ``[H, W, 3]`` as 8 bits, the darkest black and the lightest white."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    least, most = np.percentile(values, (_CUT, 100 - _CUT))
    if most - least <= _FLAT * np.abs(values).max():  # noise, which must not be made a picture
        return Image.new("L" if values.ndim == 2 else "RGB", values.shape[1::-1])
    return Image.fromarray(np.rint(((values - least) * (255 / (most - least))).clip(0, 255)).astype(np.uint8))


def _on_a_ground(image: Image.Image) -> Image.Image:
    """Return a picture with transparent parts on white, or on black where white would hide what is drawn."""
    pixels = np.asarray(image).astype(np.float32)
    opaque = pixels[..., 3] / 255
    light = pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    hidden = (opaque * (255 - light)).sum() < _FAINT * opaque.sum()
    ground = "black" if hidden and (opaque * light).sum() > (opaque * (255 - light)).sum() else "white"
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
