"""Sine waves: which tasks are drawn, against a reference in NumPy and against the laws that they follow."""

import math

import numpy as np
import pytest
import torch
from reference_streams import chi_square, reference_bits, threshold
from waves import EPISODE, make_stream

from bench.api import BenchError, Episode
from bench.tasks.stream import TaskStream


def reference_wave(key, number, shots, queries):
    """One task from the definition: x and y of support, then of query."""
    a = 0.1 + 4.9 * ((reference_bits(key, number, 0, 1)[0] >> 1) + 0.5) / 2**31
    b = 2 * np.pi * ((reference_bits(key, number, 1, 1)[0] >> 1) + 0.5) / 2**31
    keys = reference_bits(key, number, 2, 50)
    points = sorted(range(50), key=lambda i: (keys[i], i))[: shots + (0 if queries == 50 else queries)]
    chosen = points[:shots], range(50) if queries == 50 else points[shots:]
    places = [np.linspace(-5, 5, 50)[list(part)] for part in chosen]
    return [(x, a * np.sin(x + b)) for x in places]


@pytest.mark.parametrize("episode", [EPISODE, Episode(1, 5, 10), Episode(1, 10, 50)])
def test_waves_equal_the_numpy_reference(episode):
    stream = make_stream(seed=7, episode=episode)
    for number in (0, 255, 256, 2**32 + 5):
        task = stream.batch(number, 1)
        sets = reference_wave(stream.key, number, episode.k_shot, episode.k_query)
        for examples, (x, y) in zip((task.support, task.query), sets, strict=True):
            assert examples.x.shape == (1, len(x), 1)
            np.testing.assert_allclose(examples.x[0, :, 0].numpy(), x, rtol=0, atol=1e-14)
            np.testing.assert_allclose(examples.y[0].numpy(), y, rtol=0, atol=1e-13)


def test_waves_do_not_depend_on_how_they_are_asked_for_nor_on_rotation():
    whole = make_stream(kind=TaskStream).batch(250, 12)
    stream = make_stream(kind=TaskStream, rotation="pooled")
    stream.batch(1000, 3)
    for start, count in ((250, 1), (253, 7), (261, 1)):
        part, here = stream.batch(start, count), slice(start - 250, start - 250 + count)
        assert torch.equal(part.query.y, whole.query.y[here])
        assert torch.equal(part.support.x, whole.support.x[here])
        assert torch.equal(part.support.orders(3, 50), whole.support.orders(3, 50)[here])
    assert whole.support.x.dtype == whole.support.y.dtype == torch.float32


def test_other_seeds_and_splits_have_other_waves():
    streams = [make_stream(), make_stream(seed=1), make_stream("meta_val"), make_stream("meta_test")]
    assert len({stream.digest(20) for stream in streams}) == 4
    drawn = [tuple(stream.batch(0, 20).support.y.flatten().tolist()) for stream in streams]
    assert len(set(drawn)) == 4


def waves(n):
    """Amplitude and phase of n tasks, worked out from their points: y = a cos(b) sin(x) + a sin(b) cos(x)."""
    tasks = make_stream().batch(0, n).together()
    x, y = tasks.x[..., 0], tasks.y
    design = torch.stack([x.sin(), x.cos()], dim=-1)
    c, s = torch.linalg.lstsq(design, y[..., None]).solution[..., 0].T
    return (c.square() + s.square()).sqrt(), torch.atan2(s, c) % (2 * math.pi)


def test_amplitude_and_phase_are_uniform_over_their_ranges_and_independent():
    """Kolmogorov and Smirnov's distance stays below its 99.99% point, 2.23 / sqrt(n)."""
    n = 4000
    amplitude, phase = waves(n)
    shares = (amplitude - 0.1) / 4.9, phase / (2 * math.pi)
    expected = torch.arange(1, n + 1, dtype=torch.float64) / n
    for share in shares:
        assert -1e-9 <= share.min() < 0.01
        assert 0.99 < share.max() <= 1 + 1e-9
        assert (share.sort().values - expected).abs().max() < 2.23 / math.sqrt(n)
    cells = (shares[0] * 5).long().clamp(0, 4) * 5 + (shares[1] * 5).long().clamp(0, 4)
    assert chi_square(cells, 25) < threshold(25)


def test_points_are_of_the_grid_drawn_equally_often_and_never_in_both_sets():
    tasks = make_stream(episode=Episode(1, 10, 25)).batch(0, 1000)
    grid = torch.linspace(-5, 5, 50, dtype=torch.float64)
    both = torch.cat([tasks.support.x, tasks.query.x], dim=1)[..., 0]
    place = torch.searchsorted(grid, both - 1e-6)
    torch.testing.assert_close(grid[place], both, rtol=0, atol=1e-12)
    assert (place.sort(dim=1).values.diff(dim=1) > 0).all()
    assert chi_square(place[:, :10], 50) < threshold(50)
    assert chi_square(place[:, 0], 50) < threshold(50)


@pytest.mark.parametrize(
    ("episode", "words"),
    [
        (Episode(5, 10, 40), "n_way 5: sine is a regression of one target; accepted: 1"),
        (Episode(1, 11, 40), "more than the 50 points"),
        (Episode(1, 51, 50), "more than the 50 points"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_in_words(episode, words):
    with pytest.raises(BenchError, match=words):
        make_stream(episode=episode)
