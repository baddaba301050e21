"""Contact sheet: some characters of every split, a row each, so that one can see what the networks see.

``python -m bench.contact_sheet --dataset omniglot --data-root DIR --out FILE.png``
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.api import SPLITS, BenchError
from bench.registry import load_plugin
from bench.report.drawing.pictures import png
from bench.settings.config import RunConfig
from bench.system.files import write_atomic
from bench.tasks.data import load_data
from bench.tasks.images import ImageSet

_GAP = 2  # pixels between pictures
_PAPER, _GROUND = 255, 225  # grey levels


def contact_sheet(
    images: ImageSet, path: Path, splits: Sequence[str] = SPLITS, rows: int = 12, variants: int = 10
) -> None:
    """Write a PNG with ``rows`` classes of each split, spread evenly over it, and ``variants`` images of each class.

    The same image set gives the same file. Written whole or not at all.

    Raises:
        ValueError: a split is unknown or has no class, or ``rows`` or ``variants`` is below 1.
        OSError: the file cannot be written.
    """
    if rows < 1 or variants < 1:
        raise ValueError(f"rows {rows} and variants {variants} must be at least 1")
    unknown = [split for split in splits if not images.splits.get(split)]
    if unknown or not splits:
        raise ValueError(f"split {', '.join(unknown)!r} has no class; accepted: {', '.join(images.splits)}")
    sheets = [_sheet(images, images.splits[split], rows, variants) for split in splits]
    height, width = sheets[0].shape[:2]
    scale = 3.0 / width  # inches per pixel
    figure = Figure(figsize=(len(splits) * (3.0 + 0.25) + 0.1, height * scale + 0.75), layout="constrained")
    figure.suptitle(f"{images.name}: {len(images.counts):,} classes x {_spread(images.counts)} images", fontsize=11)
    columns = figure.subplots(1, len(splits), squeeze=False)[0]
    for axes, split, sheet in zip(columns, splits, sheets):
        axes.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="equal")
        axes.set_title(f"{split} ({len(images.splits[split]):,})", fontsize=9)
        axes.set_axis_off()
    write_atomic(path, png(figure))


def _sheet(images: ImageSet, owned: Sequence[int], rows: int, variants: int) -> NDArray[np.uint8]:
    """Return one split's pictures, ``[rows * cell, variants * cell]``, ink dark on light, or with three channels."""
    shown = min(rows, len(owned))
    chosen = [owned[(2 * i + 1) * len(owned) // (2 * shown)] for i in range(shown)]
    channels, height, width = images.shape
    n_columns = min(variants, max(images.counts))
    sheet = np.full((rows, height + _GAP, n_columns, width + _GAP, channels), _GROUND, np.uint8)
    for row, c in enumerate(chosen):
        pictures = images.of_class(c)[:n_columns].permute(2, 0, 3, 1).cpu().numpy()  # [H, images, W, C]
        inked = images.reading is not None and images.reading.ink
        sheet[row, 1 : 1 + height, : pictures.shape[1], 1 : 1 + width] = _PAPER - pictures if inked else pictures
    whole = sheet.reshape(rows * (height + _GAP), n_columns * (width + _GAP), channels)
    return whole[..., 0] if channels == 1 else whole


def _spread(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} to {most}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the sheet that the command line asks for; return the exit status, 2 for wrong usage or data."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.contact_sheet", description="Draw some images of a data set."
    )
    parser.add_argument("--dataset", default=RunConfig.dataset, help="as for run_bench.py (default: %(default)s)")
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("BENCH_DATA", "data")), help="the same")
    parser.add_argument("--plugin", action="append", default=[], type=Path, metavar="FILE.py", help="the same")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    chosen = parser.parse_args(arguments)
    try:
        for path in chosen.plugin:
            load_plugin(path)
        with tempfile.TemporaryDirectory() as cache:
            images = load_data(
                chosen.dataset, chosen.data_root, Path(cache), lambda line: print(f"WARNING: {line}", file=sys.stderr)
            )
        if not isinstance(images, ImageSet):
            raise BenchError(f"--dataset {chosen.dataset!r}: holds no images; accepted: a data set of images")
        contact_sheet(images, chosen.out)
    except (BenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(chosen.out)
    return 0
