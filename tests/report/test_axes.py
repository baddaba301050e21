"""Axes of pictures: where labels beside lines stand."""

import pytest

from bench.report.drawing.axes import spread


def test_labels_move_as_little_as_keeps_them_apart():
    assert spread([0.0, 0.0, 1.0], 0.2) == pytest.approx([-0.1, 0.1, 1.0])
    assert spread([0.0, 0.1, 0.2, 5.0], 1.0) == pytest.approx([-0.9, 0.1, 1.1, 5.0])
    assert spread([], 1.0) == []
