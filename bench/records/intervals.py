"""How sure a mean over tasks is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def mean_ci95(values: ArrayLike) -> tuple[float, float]:
    """Return the mean and the half-width of its 95% interval, 1.96 sd / sqrt(n) with sd over n - 1.

    The half-width is NaN for a single value, and both are NaN for none: one task says nothing about its spread.
    """
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if x.size else math.nan
    with np.errstate(invalid="ignore"):  # an infinite value leaves no interval
        return mean, 1.96 * float(x.std(ddof=1)) / math.sqrt(x.size) if x.size > 1 else math.nan
