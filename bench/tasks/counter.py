"""Philox4x32-10: random bits as a pure function of a counter and a key, in integer arithmetic on any device."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return four lanes of 32 random bits, each an int64 tensor shaped like the (broadcast) counter lanes.

    Philox4x32-10 of Salmon et al. 2011 (doi:10.1145/2063384.2063405), whose ten rounds pass BigCrush. Products of
    two 32-bit lanes may wrap around int64; their low and high halves are right all the same.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def random_bits(key: tuple[int, int], purpose: int, index: Tensor, n: int) -> Tensor:
    """Return ``[T, n]`` int64 values of 32 random bits for the indices ``[T]``, the first n of an endless row each.

    Rows of different index, purpose or key are independent; asking for more of a row never changes its beginning.
    """
    block = torch.arange(-(-n // 4), device=index.device)[None, :]
    rows = index[:, None]
    shape = torch.broadcast_shapes(rows.shape, block.shape)
    counter = (
        (rows & _MASK).expand(shape),
        (rows >> 32).expand(shape),
        block.expand(shape),
        torch.full_like(block, purpose).expand(shape),
    )
    return torch.stack(philox4x32(counter, key), dim=-1).flatten(1)[:, :n]


def below(bits: Tensor, bound: Tensor | int) -> Tensor:
    """Map 32 random bits to integers in 0..bound-1; the bias is below bound / 2**32."""
    return (bits * bound) >> 32


def permutations(bits: Tensor) -> Tensor:
    """Turn random bits ``[..., n]`` into permutations of 0..n-1 by sorting; the index breaks ties on all devices."""
    n = bits.shape[-1]
    index = torch.arange(n, device=bits.device)
    return ((bits << 20) | index).argsort(dim=-1)


def distinct(bits: Tensor, bound: int | Tensor) -> Tensor:
    """Turn random bits ``[T, n]`` into n different integers in 0..bound-1 per row, every ordered choice equally likely.

    Rows may have a bound each, ``[T, 1]``.

    Draw j picks the r-th of the bound - j integers still free: r plus the number of sorted earlier picks s_i with
    s_i - i <= r. So the cost depends on n alone, not on the bound.
    """
    picks = below(bits[:, :1], bound)
    for j in range(1, bits.shape[1]):
        rank = below(bits[:, j : j + 1], bound - j)
        earlier = picks.sort(dim=1).values - torch.arange(j, device=bits.device)
        picks = torch.cat([picks, rank + (earlier <= rank).sum(dim=1, keepdim=True)], dim=1)
    return picks


def key_from(seed: int, text: str) -> tuple[int, int]:
    """Return the Philox key of a seed in 0..2**32-1 and of what the stream is for."""
    return seed & _MASK, int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
