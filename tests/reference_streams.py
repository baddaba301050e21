"""Random bits from the definition of Philox alone, and a test that draws are equally likely."""

import numpy as np
import torch


def reference_bits(key, number, purpose, n):
    """Return n random bits of a task in scalar unsigned arithmetic, from the definition of Philox4x32-10 alone."""
    mask = np.uint64(0xFFFFFFFF)

    def philox(counter):
        c, k = [np.uint64(v) for v in counter], [np.uint64(v) for v in key]
        for _ in range(10):
            p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
            c = [(p1 >> np.uint64(32)) ^ c[1] ^ k[0], p1 & mask, (p0 >> np.uint64(32)) ^ c[3] ^ k[1], p0 & mask]
            k = [(k[0] + np.uint64(0x9E3779B9)) & mask, (k[1] + np.uint64(0xBB67AE85)) & mask]
        return [int(v) for v in c]

    blocks = [philox((number & 0xFFFFFFFF, number >> 32, b, purpose)) for b in range(-(-n // 4))]
    return [v for block in blocks for v in block][:n]


def chi_square(values, cells):
    counts = torch.bincount(values.flatten(), minlength=cells).double()
    assert len(counts) == cells
    return ((counts - counts.mean()).square() / counts.mean()).sum().item()


def threshold(cells):
    """The 99.99% point of chi-square with cells - 1 degrees of freedom (Wilson and Hilferty)."""
    n = cells - 1
    return n * (1 - 2 / (9 * n) + 3.719 * (2 / (9 * n)) ** 0.5) ** 3
