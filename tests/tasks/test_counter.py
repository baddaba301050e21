"""The counter-based generator against published vectors, and what is built on it against counting."""

import itertools
from collections import Counter

import pytest
import torch

from bench.tasks.counter import below, distinct, key_from, permutations, philox4x32, random_bits

# Known answers of Random123 (kat_vectors, philox4x32 10): counter, key, output.
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_gives_the_published_vectors(counter, key, expected):
    lanes = philox4x32(tuple(torch.tensor([c]) for c in counter), key)
    assert tuple(lane.item() for lane in lanes) == expected


def test_a_row_of_random_bits_depends_on_index_purpose_and_key_alone():
    index = torch.tensor([7, 2**33 + 7, 8])
    bits = random_bits((1, 2), 0, index, 10)
    assert torch.equal(random_bits((1, 2), 0, index[1:2], 3), bits[1:2, :3])
    rows = [bits[0], bits[1], bits[2], random_bits((1, 2), 1, index, 10)[0], random_bits((2, 2), 0, index, 10)[0]]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(rows, 2))


def test_below_covers_its_range_and_nothing_else():
    bits = torch.tensor([0, 2**31, 2**32 - 1])
    assert below(bits, 7).tolist() == [0, 3, 6]


@pytest.mark.parametrize("draw", [lambda bits: distinct(bits, 4)[:, :3], lambda bits: permutations(bits)[:, :3]])
def test_every_ordered_choice_of_three_out_of_four_is_equally_likely(draw):
    """24 outcomes, 24,000 draws: chi-square with 23 degrees of freedom stays below 49.7 in 99.9% of all cases."""
    bits = random_bits(key_from(3, "test"), 0, torch.arange(24_000), 4)
    counts = Counter(map(tuple, draw(bits).tolist()))
    assert set(counts) == set(itertools.permutations(range(4), 3))
    assert sum((n - 1000) ** 2 / 1000 for n in counts.values()) < 49.7


def test_distinct_takes_all_when_asked_for_all():
    bits = random_bits((0, 0), 0, torch.arange(50), 6)
    assert torch.equal(distinct(bits, 6).sort(dim=1).values, torch.arange(6).expand(50, 6))
