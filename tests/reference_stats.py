"""Independent versions of what the tables claim, written from the definitions with scipy and plain numpy."""

from __future__ import annotations

import numpy as np
from scipy import stats


def exact_sign_flip_p(a, b, unit):
    """The sign-flip p-value with nothing drawn: the distribution over all signings, on a lattice of ``unit``.

    Each difference is added in turn by convolution, in whole units, so that ties are ties.
    """
    steps = np.rint((np.asarray(a) - np.asarray(b)) / unit).astype(int)
    chances = np.ones(1)  # of a sum of -(n // 2) .. n // 2 units
    for size in np.abs(steps[steps != 0]):
        kernel = np.zeros(2 * size + 1)
        kernel[[0, -1]] = 0.5
        chances = np.convolve(chances, kernel)
    reach = np.abs(np.arange(chances.size) - chances.size // 2)
    return float(chances[reach >= abs(steps.sum())].sum())


def step_down(p_values):
    """Holm's correction, as its definition words it: the largest (n - j) p of those up to one's own rank."""
    order = np.argsort(p_values, kind="stable")
    n = len(order)
    corrected = np.empty(n)
    for rank, i in enumerate(order):
        corrected[i] = min(1.0, max((n - j) * p_values[order[j]] for j in range(rank + 1)))
    return corrected.tolist()


def paired_interval(a, b):
    """Scipy's paired t interval."""
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    return float(interval.low), float(interval.high)
