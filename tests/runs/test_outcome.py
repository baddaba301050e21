"""What a run's test came to: an error that is not finite is no result."""

import numpy as np
import pytest

from bench.runs.outcome import finite
from bench.training.contract import Diverged
from bench.training.evaluate import Evaluation


def test_an_error_that_is_not_finite_is_divergence():
    fine = Evaluation({"plain": {0: np.array([1.0, 2.0]), 32: np.array([0.5, 1e300])}})
    assert finite(fine) is fine
    with pytest.raises(Diverged, match="not finite on 1 of 2 test tasks after 32 adaptation steps; try a lower inner"):
        finite(Evaluation({"plain": {0: np.array([1.0, 2.0]), 32: np.array([0.5, np.inf])}}))
