"""Glyphs: letters of many scripts, drawn from one font as if by 20 hands; needs neither files nor a network."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import ft2font
from numpy.typing import NDArray

from bench.api import Dataset
from bench.registry import register_dataset
from bench.tasks.imagecache import Prepared, cached, prepare
from bench.tasks.images import ROTATIONS, ImageSet

SIDE = 28
VARIANTS = 20
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"

# The pen-and-paper model, in pixels of the 28 x 28 picture where no unit is named. Chosen by looking at both data
# sets side by side, and so that nearest neighbours on raw pixels find them about equally hard.
_EXTENT = 18.5  # the longer side of a letter
_ASPECT, _SCALE = 0.07, 0.12  # relative sd of width and height: of the letter, of each drawing
_TURN, _SHEAR = 0.14, 0.12  # sd, radians and fraction
_SHIFT, _ELASTIC = 1.35, 0.85  # sd of the whole drawing, of each of 4 x 4 points of a smooth bend
_PEN = (0.55, 0.8)  # least and greatest half-width of a stroke

_BOX, _MARGIN = 64, 6  # the longer side of a letter and the space around it, in pixels of its skeleton's canvas
_CANVAS = _BOX + 2 * _MARGIN
_REACH = 11  # distances are cut off here, where squares still fit into a byte; a pen never reaches as far
_LEAST_INK = _BOX // 2  # pixels of a skeleton; less are letters of dots alone, of which a picture keeps hardly any
_SAME = 4  # shapes are one if their mean squared distance is below this many square pixels of the canvas


@register_dataset("glyphs")
class Glyphs(Dataset):
    """One class per distinct letter shape, 20 variants each, split 68 / 6 / 26 % as Omniglot is."""

    paper = "made here from DejaVu Sans (dejavu-fonts.github.io); no published result uses it"
    auto_rank = 1
    licence = "drawn from DejaVu Sans (Bitstream Vera licence)"

    def load(self, root: Path, cache: Path) -> ImageSet:
        """Return at least 1,200 letters, uint8 ``[classes, 20, 28, 28]``, the same bytes on every call.

        Args:
            root: not used.
            cache: keeps the drawn images, since drawing them takes seconds.
        """
        pipeline = (
            f"glyphs 1: DejaVu Sans {hashlib.sha256(FONT.read_bytes()).hexdigest()[:12]}, "
            f"FreeType {ft2font.__freetype_version__}, matplotlib {matplotlib.__version__}; "
            f"plain and once accented letters, thinned to {_LEAST_INK} pixels or more, "
            f"distinct under rotation (mean squared distance {_SAME} of {_BOX} pixels); "
            f"{VARIANTS} variants: extent {_EXTENT}, aspect {_ASPECT}, scale {_SCALE}, turn {_TURN}, shear {_SHEAR}, "
            f"shift {_SHIFT}, elastic {_ELASTIC}, pen {_PEN}; ink 255 on 0"
        )
        prepared = cached("glyphs", pipeline, (cache,), _prepare)
        images, names = torch.from_numpy(prepared.images), prepared.class_names
        return ImageSet("glyphs", images, names, _splits(names), pipeline, prepared.sha256, ROTATIONS)


def _prepare() -> Prepared:
    codes, bitmaps = letters()
    skeletons = thinned(bitmaps)
    drawn = (skeletons.sum(axis=(1, 2)) >= _LEAST_INK).nonzero()[0].tolist()
    chosen = [drawn[i] for i in distinct(skeletons[drawn])]
    names = [f"U+{codes[i]:04X} {unicodedata.name(chr(codes[i]))}" for i in chosen]
    distances = np.sqrt(squared_distances(skeletons[chosen]), dtype=np.float64)
    return prepare(np.stack([_drawn(name, d) for name, d in zip(names, distances)]), names)


def _splits(names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Cut the classes, in the order of their names' hashes, where Omniglot's 1,623 are cut."""
    order = sorted(
        range(len(names)), key=lambda i: hashlib.sha256(f"metabench glyphs split v1 {names[i]}".encode()).digest()
    )
    train, val = (round(len(names) * part / 1623) for part in (1100, 1200))
    return {
        "meta_train": tuple(sorted(order[:train])),
        "meta_val": tuple(sorted(order[train:val])),
        "meta_test": tuple(sorted(order[val:])),
    }


# From the font to shapes.


def letters() -> tuple[list[int], NDArray[np.uint8]]:
    """Return the code points of the font's letters and their bitmaps, 0/1 ``[letters, canvas, canvas]``, centred.

    Plain letters come first, then those with one accent; with more of them, or in another style, they are left out.
    """
    font = ft2font.FT2Font(str(FONT))
    parts = {code: unicodedata.normalize("NFD", chr(code)) for code in sorted(font.get_charmap())}
    codes = [
        code
        for code, letter in sorted(parts.items(), key=lambda item: len(item[1]))
        if unicodedata.category(chr(code))[0] == "L"
        and len(letter) <= 2
        and unicodedata.normalize("NFKD", chr(code)) == letter
    ]
    bitmaps = []
    for code in codes:
        x0, y0, x1, y1 = font.load_char(code, flags=ft2font.LoadFlags.NO_SCALE).bbox
        font.set_size(_BOX * font.units_per_EM / max(x1 - x0, y1 - y0), 72)
        font.set_text(chr(code), 0, flags=ft2font.LoadFlags.NO_HINTING)
        font.draw_glyphs_to_bitmap(antialiased=False)
        ink = font.get_image() > 0
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        above, left = (_CANVAS - ink.shape[0]) // 2, (_CANVAS - ink.shape[1]) // 2
        canvas = np.zeros((_CANVAS, _CANVAS), np.uint8)
        canvas[above : above + ink.shape[0], left : left + ink.shape[1]] = ink
        bitmaps.append(canvas)
    return codes, np.stack(bitmaps)


def _deletable() -> NDArray[np.uint8]:
    """Return 1 or 0 for both half-steps of thinning and all 256 neighbourhoods, bit 0 north, then clockwise."""
    table = np.zeros((2, 256), np.uint8)
    for code in range(256):
        ring = [code >> bit & 1 for bit in range(8)]
        n, e, s, w = ring[::2]
        edges = sum(ring[bit] < ring[(bit + 1) % 8] for bit in range(8))
        if 2 <= sum(ring) <= 6 and edges == 1:
            table[0, code] = not (n and e and s) and not (e and s and w)
            table[1, code] = not (n and e and w) and not (n and s and w)
    return table


def thinned(bitmaps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the skeletons of 0/1 bitmaps ``[n, H, W]`` (Zhang, Suen 1984, doi:10.1145/357994.358023)."""
    table = _deletable()
    ring = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    height, width = bitmaps.shape[1:]
    result = bitmaps.copy()
    changing = np.arange(len(result))
    while len(changing):
        before = result[changing]
        after = before.copy()
        for half_step in (0, 1):
            padded = np.pad(after, ((0, 0), (1, 1), (1, 1)))
            code = np.zeros_like(after)
            for bit, (dy, dx) in enumerate(ring):
                code |= padded[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] << bit
            after &= 1 - table[half_step][code]
        result[changing] = after
        changing = changing[(after != before).any(axis=(1, 2))]
    return result


def squared_distances(bitmaps: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return for every pixel of ``[n, H, W]`` the squared distance to the nearest ink, at most ``_REACH`` squared."""
    result = np.where(bitmaps > 0, 0, _REACH * _REACH).astype(np.uint8)
    for axis in (1, 2):
        along = np.moveaxis(result, axis, 0)
        nearest = along.copy()
        for step in range(1, _REACH):
            np.minimum(nearest[step:], along[:-step] + step * step, out=nearest[step:])
            np.minimum(nearest[:-step], along[step:] + step * step, out=nearest[:-step])
        result = np.moveaxis(nearest, 0, axis)
    return result


def distinct(skeletons: NDArray[np.uint8]) -> list[int]:
    """Return which of ``[n, H, W]`` to keep so that all their rotations by quarter turns differ from one another.

    The first of equal shapes stays. A shape that a turn maps to itself goes too, since the harness makes classes of
    rotations.
    """
    n = len(skeletons)
    # Whole numbers below 2**24, so that float32 sums are exact in whatever order a machine adds them.
    field = torch.from_numpy(squared_distances(skeletons).reshape(n, -1)).float().T.contiguous()
    ink = torch.from_numpy(skeletons).float()
    turned = [torch.rot90(ink, turn, (1, 2)).reshape(n, -1).to_sparse() for turn in range(4)]
    # near[r][i, j]: the pixels of i, turned r times, are near j
    near = [torch.sparse.mm(t, field) < _SAME * ink.sum(dim=(1, 2))[:, None] for t in turned]
    same = torch.stack([near[r] & near[-r % 4].T for r in range(4)])  # [turn, n, n]
    symmetric = same[1:].any(dim=0).diagonal()
    alike = same.any(dim=0).numpy()
    kept: list[int] = []
    for i in range(n):
        if not symmetric[i] and not alike[i, kept].any():
            kept.append(i)
    return kept


# From a shape to drawings of it.


def _draws(name: str, *shape: int) -> NDArray[np.float64]:
    """Return bell-shaped numbers of mean 0, sd 1 and magnitude below 3.5: a function of ``name``, on any machine."""
    count = 4 * int(np.prod(shape))
    bits = np.frombuffer(hashlib.shake_256(name.encode()).digest(4 * count), "<u4").astype(np.float64)
    return (bits.reshape(*shape, 4).sum(axis=-1) / 2**32 - 2) * np.sqrt(3.0)


def _drawn(name: str, distances: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return variants of one letter, uint8 ``[20, 28, 28]``, from the distances to its skeleton ``[canvas, canvas]``.

    In float64 throughout: a rounding that differs between machines then moves no pixel across a stroke's edge.
    """
    width, height = _EXTENT * (1 + _ASPECT * _draws(f"aspect {name}", 2))
    turn, shear, scale_x, scale_y, shift_x, shift_y, pen = _draws(f"hand {name}", 7, VARIANTS, 1, 1)
    bend = F.interpolate(
        torch.from_numpy(_ELASTIC * _draws(f"bend {name}", VARIANTS, 2, 4, 4)),
        size=(SIDE, SIDE),
        mode="bicubic",
        align_corners=True,
    ).numpy()
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    x = x + bend[:, 0] - _SHIFT * shift_x  # [20, 28, 28]
    y = y + bend[:, 1] - _SHIFT * shift_y
    cos, sin = np.cos(_TURN * turn), np.sin(_TURN * turn)
    x, y = cos * x + sin * y, cos * y - sin * x
    x = (x - _SHEAR * shear * y) / (width * (1 + _SCALE * scale_x))  # in boxes of the letter from its centre
    y = y / (height * (1 + _SCALE * scale_y))
    grid = torch.from_numpy(np.stack([x, y], axis=-1) * (2 * _BOX / _CANVAS))
    field = torch.from_numpy(distances).expand(VARIANTS, 1, -1, -1)
    distance = F.grid_sample(field, grid, padding_mode="border", align_corners=False)[:, 0].numpy()
    # Distances shrink and grow with the letter; the pen does not.
    (x_down, x_right), (y_down, y_right) = np.gradient(x, axis=(1, 2)), np.gradient(y, axis=(1, 2))
    magnified = _BOX * np.sqrt(np.abs(x_right * y_down - x_down * y_right))
    usual = _BOX / _EXTENT
    thin, thick = _PEN
    half_width = thin + (thick - thin) * (0.5 + pen / 7)
    return np.where(distance < half_width * magnified.clip(0.6 * usual, 1.5 * usual), 255, 0).astype(np.uint8)
