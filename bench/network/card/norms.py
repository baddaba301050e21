"""Batch normalisation with its (leaky) ReLU and two derivatives, each one launch, in Triton.

What is computed is said in ``bench.network.kernels``: these are its three written-out functions for ``x [T, m, C]``.
A task's weight lies ``w_step`` numbers behind the last one's, 0 where all tasks have the same, and so do others.
A program takes BC channels of one task and walks their rows twice or more, BM at a time: first for the sums, then for
what comes of them. BM sums run side by side and are put together as a tree, so that rounding hardly grows with m.
"""

import triton
import triton.language as tl


@triton.jit
def _bent(y, SLOPE: tl.constexpr):
    if SLOPE is not None:
        y = tl.where(y <= 0, SLOPE * y, y) if SLOPE > 0 else tl.where(y <= 0, 0.0, y)  # NaN stays NaN
    return y


@triton.jit
def _masked(u, y, known, SLOPE: tl.constexpr):
    """Return the derivative of ``_bent`` times ``u``, from what it returned; ``y`` points to that."""
    if SLOPE is not None:
        bent = tl.load(y, mask=known, other=0.0)
        u = tl.where(bent > 0, u, SLOPE * u) if SLOPE > 0 else tl.where(bent > 0, u, 0.0)
    return u


@triton.jit(do_not_specialize=["rows"])
def forward(
    x, weight, bias, y, mean, rstd, rows, w_step, b_step,
    C: tl.constexpr, EPS: tl.constexpr, SLOPE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write ``y`` and of every task and channel mean and 1/deviation."""
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    real = c < C
    x += task * (rows * C) + c[None, :]
    y += task * (rows * C) + c[None, :]
    of_task = task * C + c
    start = tl.load(x, mask=real[None, :], other=0.0)  # its first row: what a mean far from zero has to itself
    total = tl.zeros((BM, BC), x.dtype.element_ty)
    for first in range(0, rows, BM):
        m = (first + tl.arange(0, BM))[:, None]
        known = (m < rows) & real[None, :]
        total += tl.where(known, tl.load(x + m * C, mask=known, other=0.0) - start, 0.0)
    mu = tl.sum(start, 0) + tl.sum(total, 0) / rows
    total = tl.zeros((BM, BC), x.dtype.element_ty)
    for first in range(0, rows, BM):
        m = (first + tl.arange(0, BM))[:, None]
        known = (m < rows) & real[None, :]
        centred = tl.where(known, tl.load(x + m * C, mask=known, other=0.0) - mu[None, :], 0.0)
        total += centred * centred
    r = tl.rsqrt(tl.sum(total, 0) / rows + EPS)
    tl.store(mean + of_task, mu, mask=real)
    tl.store(rstd + of_task, r, mask=real)
    scale = tl.load(weight + task * w_step + c, mask=real, other=0.0) * r
    shift = tl.load(bias + task * b_step + c, mask=real, other=0.0)
    for first in range(0, rows, BM):
        m = (first + tl.arange(0, BM))[:, None]
        known = (m < rows) & real[None, :]
        centred = tl.load(x + m * C, mask=known, other=0.0) - mu[None, :]
        tl.store(y + m * C, _bent(centred * scale[None, :] + shift[None, :], SLOPE), mask=known)


@triton.jit
def _known(mean, rstd, weight, rows, w_step, C: tl.constexpr, BC: tl.constexpr):
    """Return which of a program's channels are there, where their first row and their statistics lie, and these."""
    task = tl.program_id(1).to(tl.int64)
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    real, of_task = c < C, task * C + c
    mu = tl.load(mean + of_task, mask=real, other=0.0)[None, :]
    r = tl.load(rstd + of_task, mask=real, other=0.0)[None, :]
    w = tl.load(weight + task * w_step + c, mask=real, other=0.0)[None, :]
    return real, task * (rows * C) + c[None, :], of_task, mu, r, w


@triton.jit(do_not_specialize=["rows"])
def backward(
    dy, x, y, mean, rstd, weight, dx, d_weight, d_bias, rows, w_step,
    C: tl.constexpr, SLOPE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write the derivatives with respect to ``x``, weight and bias."""
    real, start, of_task, mu, r, w = _known(mean, rstd, weight, rows, w_step, C, BC)
    sum_z, sum_zx = tl.zeros((BM, BC), x.dtype.element_ty), tl.zeros((BM, BC), x.dtype.element_ty)
    for first in range(0, rows, BM):
        m = (first + tl.arange(0, BM))[:, None]
        known, at = (m < rows) & real[None, :], start + m * C
        dz = _masked(tl.load(dy + at, mask=known, other=0.0), y + at, known, SLOPE)
        sum_z += dz
        sum_zx += dz * ((tl.load(x + at, mask=known, other=0.0) - mu) * r)
    z, z_xh = tl.sum(sum_z, 0), tl.sum(sum_zx, 0)
    tl.store(d_bias + of_task, z, mask=real)
    tl.store(d_weight + of_task, z_xh, mask=real)
    mean_z, mean_zx = (z / rows)[None, :], (z_xh / rows)[None, :]
    for first in range(0, rows, BM):
        m = (first + tl.arange(0, BM))[:, None]
        known, at = (m < rows) & real[None, :], start + m * C
        dz = _masked(tl.load(dy + at, mask=known, other=0.0), y + at, known, SLOPE)
        xh = (tl.load(x + at, mask=known, other=0.0) - mu) * r
        tl.store(dx + at, w * r * (dz - mean_z - xh * mean_zx), mask=known)


@triton.jit(do_not_specialize=["rows"])
def double_backward(
    vx, dy, x, y, mean, rstd, weight, vw, vb, d_weight, d_bias, d_dy, dx, d_w, rows, w_step, vw_step, vb_step,
    C: tl.constexpr, SLOPE: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Write the derivatives of ``<v, backward(...)>`` with respect to ``dy``, ``x`` and the weight."""
    real, start, of_task, mu, r, w = _known(mean, rstd, weight, rows, w_step, C, BC)
    of_v, of_vx, of_vz = (
        tl.zeros((BM, BC), x.dtype.element_ty),
        tl.zeros((BM, BC), x.dtype.element_ty),
        tl.zeros((BM, BC), x.dtype.element_ty),
    )
    for first in range(0, rows, BM):
        m = (first + tl.arange(0, BM))[:, None]
        known, at = (m < rows) & real[None, :], start + m * C
        v = tl.load(vx + at, mask=known, other=0.0)
        of_v += v
        of_vx += v * ((tl.load(x + at, mask=known, other=0.0) - mu) * r)
        of_vz += v * _masked(tl.load(dy + at, mask=known, other=0.0), y + at, known, SLOPE)
    sum_v, v_xh, v_z = tl.sum(of_v, 0)[None, :], tl.sum(of_vx, 0)[None, :], tl.sum(of_vz, 0)[None, :]
    task = tl.program_id(1).to(tl.int64)
    c = of_task - task * C
    to_weight = tl.load(vw + task * vw_step + c, mask=real, other=0.0)[None, :]
    to_bias = tl.load(vb + task * vb_step + c, mask=real, other=0.0)[None, :]
    z_xh = tl.load(d_weight + of_task, mask=real, other=0.0)[None, :]
    sum_z = tl.load(d_bias + of_task, mask=real, other=0.0)[None, :]
    v_pz = v_z - (sum_v * sum_z + z_xh * v_xh) / rows
    tl.store(d_w + of_task[None, :], r * v_pz, mask=real[None, :])
    scale = w * r
    from_v, from_z = -scale / rows * z_xh, to_weight - scale / rows * v_xh
    mean_g = (from_v * sum_v + from_z * sum_z) / rows
    along_xh = (from_v * v_xh + from_z * z_xh + scale * v_pz) / rows
    for first in range(0, rows, BM):
        m = (first + tl.arange(0, BM))[:, None]
        known, at = (m < rows) & real[None, :], start + m * C
        v = tl.load(vx + at, mask=known, other=0.0)
        xh = (tl.load(x + at, mask=known, other=0.0) - mu) * r
        dz = _masked(tl.load(dy + at, mask=known, other=0.0), y + at, known, SLOPE)
        to_dz = scale * (v - sum_v / rows - xh * (v_xh / rows)) + to_weight * xh + to_bias
        tl.store(d_dy + at, _masked(to_dz, y + at, known, SLOPE), mask=known)
        tl.store(dx + at, r * (from_v * v + from_z * dz - mean_g - xh * along_xh), mask=known)
