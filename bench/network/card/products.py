"""Convolution of all tasks, each with its own weights, as one product whose patches are never in memory, in Triton.

Images are ``x [T, n, H, W, C]``, ``y [T, n, H', W', O]``, weights ``w [T, O, kh, kw, C]``, all contiguous. With a row m
for each position of ``y`` and a column k for each weight of one output, the product is ``y[m, o] = sum over k of
patch[m, k] w[o, k]``; a tile of patches is gathered from ``x`` where it is needed. A grid's last axis counts tasks.

Every sum has one order, which depends on shapes alone: float32 and no atomic additions, so that results repeat.
"""

import triton
import triton.language as tl


@triton.jit
def _patches(
    x, m, rows, first, height, width, out_height, out_width,
    C: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Return what lies under the kernel at its places ``first`` to ``first + BK - 1``, for each of the rows ``m``."""
    image = m // (out_height * out_width)
    top = m // out_width % out_height * SY - PY
    left = m % out_width * SX - PX
    if C % BK == 0:  # all of one position: the bounds are looked at once a row
        place = first // C
        down = top + place // KW
        right = left + place % KW
        inside = (m < rows) & (down >= 0) & (down < height) & (right >= 0) & (right < width)
        at = ((image * height + down) * width + right) * C + first % C
        values = tl.load(x + at[:, None] + tl.arange(0, BK)[None, :], mask=inside[:, None], other=0.0)
    else:
        k = first + tl.arange(0, BK)
        place = k // C
        down = top[:, None] + (place // KW)[None, :]
        right = left[:, None] + (place % KW)[None, :]
        inside = (m < rows)[:, None] & (k < KH * KW * C)[None, :]
        inside &= (down >= 0) & (down < height) & (right >= 0) & (right < width)
        at = ((image[:, None] * height + down) * width + right) * C + (k % C)[None, :]
        values = tl.load(x + at, mask=inside, other=0.0)
    return values


@triton.jit(do_not_specialize=["images", "height", "width", "out_height", "out_width"])
def forward(
    x, w, y, images, height, width, out_height, out_width,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write ``y``; a program makes BM rows of BN outputs."""
    rows = images * out_height * out_width
    task = tl.program_id(2).to(tl.int64)
    x += task * (images * height * width * C)
    w += task * (O * KH * KW * C)
    y += task * (rows * O)
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    o = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), tl.float64 if w.dtype.element_ty == tl.float64 else tl.float32)
    for first in range(0, KH * KW * C, BK):
        a = _patches(
            x, m, rows, first, height, width, out_height, out_width, C, KH, KW, SY, SX, PY, PX, BK
        )  # fmt: skip
        k = first + tl.arange(0, BK)
        known = (o < O)[:, None] & (k < KH * KW * C)[None, :]
        b = tl.load(w + o[:, None] * (KH * KW * C) + k[None, :], mask=known, other=0.0)
        total = tl.dot(a, tl.trans(b), total, input_precision=PRECISION)
    inside = (m < rows)[:, None] & (o < O)[None, :]
    tl.store(y + m[:, None] * O + o[None, :], total.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["images", "height", "width", "out_height", "out_width"])
def by_input(
    dy, w, dx, images, height, width, out_height, out_width,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write ``dx``; a program makes BM rows of BN channels.

    Positions that are alike modulo the stride lie under the same places of the kernel. They are taken together, so
    that no product is made with the zeros between.
    """
    task = tl.program_id(2).to(tl.int64)
    dy += task * (images * out_height * out_width * O)
    w += task * (O * KH * KW * C)
    dx += task * (images * height * width * C)
    down, right = tl.program_id(0) % (SY * SX) // SX, tl.program_id(0) % SX
    deep, wide = (height + SY - 1) // SY, (width + SX - 1) // SX
    m = tl.program_id(0) // (SY * SX) * BM + tl.arange(0, BM)
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    image, below, beside = m // (deep * wide), m // wide % deep, m % wide
    top, left = (down + PY) % SY, (right + PX) % SX  # the first row and column of the kernel that lie over them
    tall, broad = (KH - top + SY - 1) // SY, (KW - left + SX - 1) // SX
    steps = (O + BK - 1) // BK
    total = tl.zeros((BM, BN), tl.float64 if w.dtype.element_ty == tl.float64 else tl.float32)
    for step in range(tall * broad * steps):
        place = step // steps
        i, j = place // broad, place % broad
        row = below + (down + PY - top) // SY - i
        column = beside + (right + PX - left) // SX - j
        o = step % steps * BK + tl.arange(0, BK)
        inside = (image < images) & (row >= 0) & (row < out_height) & (column >= 0) & (column < out_width)
        at = ((image * out_height + row) * out_width + column) * O
        a = tl.load(dy + at[:, None] + o[None, :], mask=inside[:, None] & (o < O)[None, :], other=0.0)
        tap = (top + i * SY) * KW + left + j * SX
        known = (o < O)[:, None] & (c < C)[None, :]
        b = tl.load(w + (o * (KH * KW) + tap)[:, None] * C + c[None, :], mask=known, other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    y, x = below * SY + down, beside * SX + right
    inside = ((image < images) & (y < height) & (x < width))[:, None] & (c < C)[None, :]
    at = ((image * height + y) * width + x) * C
    tl.store(dx + at[:, None] + c[None, :], total.to(dx.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["images", "height", "width", "out_height", "out_width", "share"])
def by_weight(
    dy, x, dw, images, height, width, out_height, out_width, share,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write ``dw [parts, T, O, kh, kw, C]``, each part of ``share`` rows; a program makes BM outputs by BN places.

    The grid's middle axis counts parts.
    """
    rows = images * out_height * out_width
    task = tl.program_id(2).to(tl.int64)
    part = tl.program_id(1)
    dy += task * (rows * O)
    x += task * (images * height * width * C)
    dw += (part * tl.num_programs(2) + task) * (O * KH * KW * C)
    blocks = (KH * KW * C + BN - 1) // BN
    first = tl.program_id(0) % blocks * BN
    o = tl.program_id(0) // blocks * BM + tl.arange(0, BM)
    total = tl.zeros((BM, BN), tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32)
    for begin in range(part * share, tl.minimum(part * share + share, rows), BK):
        m = begin + tl.arange(0, BK)
        known = (m < rows)[:, None] & (o < O)[None, :]
        a = tl.load(dy + m[:, None] * O + o[None, :], mask=known, other=0.0)
        b = _patches(
            x, m, rows, first, height, width, out_height, out_width, C, KH, KW, SY, SX, PY, PX, BN
        )  # fmt: skip
        total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
    k = first + tl.arange(0, BN)
    inside = (o < O)[:, None] & (k < KH * KW * C)[None, :]
    tl.store(dw + o[:, None] * (KH * KW * C) + k[None, :], total.to(dw.dtype.element_ty), mask=inside)
