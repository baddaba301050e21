"""Convolution of all tasks, each with its own weights, as one product whose patches are never in memory, in Triton.

Images are ``x [T, n, H, W, C]``, ``y [T, n, H', W', O]``, weights ``w [T, O, kh, kw, C]``, all contiguous;
if FIRST, weights lie as ``[T, O, C, kh, kw]``, those of a linear layer behind images. A task's weights lie ``w_step``
numbers behind the last one's, 0 where all tasks begin with the same, and a bias ``b_step``. With a row m
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


@triton.jit
def _add_dot(total, a, b, PRECISION: tl.constexpr):
    if total.dtype == tl.float64:  # for checks alone: Triton 3.6 has no product of these
        total += tl.sum(a[:, :, None] * b[None, :, :], 1)
    else:
        total = tl.dot(a, b, total, input_precision=PRECISION)
    return total


@triton.jit
def _placed(k, C: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, FIRST: tl.constexpr):
    """Return where the weight of column ``k`` lies."""
    if FIRST:
        k = k % C * (KH * KW) + k // C
    return k


@triton.jit
def _add_product(
    total, x, w, m, o, rows, height, width, out_height, out_width,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, FIRST: tl.constexpr, PRECISION: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Return ``total`` and the convolution of ``x`` by ``w``, at the rows ``m`` of the outputs ``o``."""
    for first in range(0, KH * KW * C, BK):
        a = _patches(x, m, rows, first, height, width, out_height, out_width, C, KH, KW, SY, SX, PY, PX, BK)
        k = first + tl.arange(0, BK)
        known = (o < O)[:, None] & (k < KH * KW * C)[None, :]
        at = o[:, None] * (KH * KW * C) + _placed(k, C, KH, KW, FIRST)[None, :]
        b = tl.load(w + at, mask=known, other=0.0)
        total = _add_dot(total, a, tl.trans(b), PRECISION)
    return total


@triton.jit(do_not_specialize=["images", "height", "width", "out_height", "out_width"])
def forward(
    x, w, x2, w2, bias, y, images, height, width, out_height, out_width, w_step, w2_step, b_step,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, FIRST: tl.constexpr, PRECISION: tl.constexpr,
    TWO: tl.constexpr, BIAS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write ``y``: ``x`` convolved by ``w``; if TWO, ``x2`` by ``w2`` added to it; if BIAS, ``bias [T, O]`` as well.

    A program makes BM rows of BN outputs.
    """
    rows = images * out_height * out_width
    task = tl.program_id(2).to(tl.int64)
    to_x = task * (images * height * width * C)
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    o = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), tl.float64 if w.dtype.element_ty == tl.float64 else tl.float32)
    total = _add_product(
        total, x + to_x, w + task * w_step, m, o, rows, height, width, out_height, out_width,
        C, O, KH, KW, SY, SX, PY, PX, FIRST, PRECISION, BK,
    )  # fmt: skip
    if TWO:
        total = _add_product(
            total, x2 + to_x, w2 + task * w2_step, m, o, rows, height, width, out_height, out_width,
            C, O, KH, KW, SY, SX, PY, PX, FIRST, PRECISION, BK,
        )  # fmt: skip
    if BIAS:
        total += tl.load(bias + task * b_step + o, mask=o < O, other=0.0)[None, :]
    inside = (m < rows)[:, None] & (o < O)[None, :]
    at = task * (rows * O) + m[:, None] * O + o[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _by_input(
    place, dy, w, dx, images, height, width, out_height, out_width,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, FIRST: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write BM rows of BN channels of ``dx``.

    Positions that are alike modulo the stride lie under the same places of the kernel. They are taken together, so
    that no product is made with the zeros between.
    """
    blocks = (C + BN - 1) // BN
    c = place % blocks * BN + tl.arange(0, BN)
    place = place // blocks
    down, right = place % (SY * SX) // SX, place % SX
    deep, wide = (height + SY - 1) // SY, (width + SX - 1) // SX
    m = place // (SY * SX) * BM + tl.arange(0, BM)
    image, below, beside = m // (deep * wide), m // wide % deep, m % wide
    top, left = (down + PY) % SY, (right + PX) % SX  # the first row and column of the kernel that lie over them
    tall, broad = (KH - top + SY - 1) // SY, (KW - left + SX - 1) // SX
    steps = (O + BK - 1) // BK
    total = tl.zeros((BM, BN), tl.float64 if w.dtype.element_ty == tl.float64 else tl.float32)
    for step in range(tall * broad * steps):
        i, j = step // steps // broad, step // steps % broad
        row = below + (down + PY - top) // SY - i
        column = beside + (right + PX - left) // SX - j
        o = step % steps * BK + tl.arange(0, BK)
        inside = (image < images) & (row >= 0) & (row < out_height) & (column >= 0) & (column < out_width)
        at = ((image * out_height + row) * out_width + column) * O
        a = tl.load(dy + at[:, None] + o[None, :], mask=inside[:, None] & (o < O)[None, :], other=0.0)
        tap = (top + i * SY) * KW + left + j * SX
        known = (o < O)[:, None] & (c < C)[None, :]
        at = o[:, None] * (KH * KW * C) + _placed(tap * C + c, C, KH, KW, FIRST)[None, :]
        b = tl.load(w + at, mask=known, other=0.0)
        total = _add_dot(total, a, b, PRECISION)
    y, x = below * SY + down, beside * SX + right
    inside = ((image < images) & (y < height) & (x < width))[:, None] & (c < C)[None, :]
    at = ((image * height + y) * width + x) * C
    tl.store(dx + at[:, None] + c[None, :], total.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def _by_weight(
    place, dy, x, dw, db, images, height, width, out_height, out_width, share,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, FIRST: tl.constexpr, PRECISION: tl.constexpr, WANT_B: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write BM outputs by BN places of a part of ``dw [parts, T, O, kh, kw, C]``: what its ``share`` rows add up to.

    If WANT_B, and the places are the first, that of ``db [parts, T, O]`` too.
    """
    rows = images * out_height * out_width
    blocks: tl.constexpr = (KH * KW * C + BN - 1) // BN
    tiles: tl.constexpr = blocks * ((O + BM - 1) // BM)
    part = place // tiles
    first = place % blocks * BN
    o = place % tiles // blocks * BM + tl.arange(0, BM)
    total = tl.zeros((BM, BN), tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32)
    beside = tl.zeros((BM,), total.dtype)
    for begin in range(part * share, tl.minimum(part * share + share, rows), BK):
        m = begin + tl.arange(0, BK)
        known = (m < rows)[:, None] & (o < O)[None, :]
        a = tl.load(dy + m[:, None] * O + o[None, :], mask=known, other=0.0)
        b = _patches(x, m, rows, first, height, width, out_height, out_width, C, KH, KW, SY, SX, PY, PX, BN)
        total = _add_dot(total, tl.trans(a), b, PRECISION)
        if WANT_B:
            beside += tl.sum(a, 0)
    if WANT_B:
        db += part.to(tl.int64) * tl.num_programs(2) * O
        tl.store(db + o, beside.to(db.dtype.element_ty), mask=(o < O) & (first == 0))
    k = first + tl.arange(0, BN)
    inside = (o < O)[:, None] & (k < KH * KW * C)[None, :]
    dw += part.to(tl.int64) * tl.num_programs(2) * (O * KH * KW * C)
    at = o[:, None] * (KH * KW * C) + _placed(k, C, KH, KW, FIRST)[None, :]
    tl.store(dw + at, total.to(dw.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["images", "height", "width", "out_height", "out_width", "share", "of_input"])
def backward(
    dy, x, w, dx, dw, db, images, height, width, out_height, out_width, share, of_input, w_step,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PY: tl.constexpr, PX: tl.constexpr, FIRST: tl.constexpr, PRECISION: tl.constexpr,
    WANT_X: tl.constexpr, WANT_W: tl.constexpr, WANT_B: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, WM: tl.constexpr, WN: tl.constexpr, WK: tl.constexpr,
):  # fmt: skip
    """Write what is wanted of a convolution's derivatives: the first ``of_input`` programs ``dx``, the others ``dw``.

    With ``dw`` comes ``db [T, O]``, if WANT_B.
    """
    place, task = tl.program_id(0), tl.program_id(2).to(tl.int64)
    to_x, to_w = task * (images * height * width * C), task * (O * KH * KW * C)
    dy += task * (images * out_height * out_width * O)
    if WANT_X:  # noqa: SIM102  # apart, what is known when it is compiled leaves no branch
        if place < of_input:
            _by_input(
                place, dy, w + task * w_step, dx + to_x, images, height, width, out_height, out_width,
                C, O, KH, KW, SY, SX, PY, PX, FIRST, PRECISION, BM, BN, BK,
            )  # fmt: skip
    if WANT_W:  # noqa: SIM102  # likewise
        if place >= of_input:
            _by_weight(
                place - of_input, dy, x + to_x, dw + to_w, db + task * O,
                images, height, width, out_height, out_width, share,
                C, O, KH, KW, SY, SX, PY, PX, FIRST, PRECISION, WANT_B, WM, WN, WK,
            )  # fmt: skip
