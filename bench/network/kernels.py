"""Which kernels a run gets, and batch normalisation with its (leaky) ReLU, two derivatives deep, without a card.

``x`` is ``[T, m, C]`` (reduced over dim 1) or ``[m, T, C]`` (over dim 0), m being the images' positions of one task;
weight and bias are ``[T, C]``. ``slope`` is that of the ReLU's negative side: 0 for the usual one, more than 0 for a
leaky one, None for none at all. With ``xh = (x - mean) * rstd``, ``P(u) = u - mean(u) - xh * mean(u * xh)`` and ``dz``
the incoming derivative behind the ReLU, the first derivative is ``weight * rstd * P(dz)``. The second follows
from it by hand, so that it takes few passes over memory. ``bench.network.card`` has all three in Triton.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.network.convolution import Pair, by_patches, linear

log = logging.getLogger("bench")

TRITON, EAGER = "triton", "eager"

_WIDTH = 64
_MOST = {"tf32x3": 1e-4, "tf32": 2e-2}  # of what a kernel may be off


def norm_forward(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float | None, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised, scaled, shifted and (by ``slope``) rectified ``x``, with mean and 1/deviation."""
    mean = x.mean(dim=dim, keepdim=True)
    centred = x - mean
    rstd = torch.rsqrt((centred * centred).mean(dim=dim, keepdim=True) + eps)  # var_mean is far slower here
    y = centred * (weight.unsqueeze(dim) * rstd) + bias.unsqueeze(dim)
    return _bent(y, slope), mean, rstd


def norm_backward(
    dy: Tensor, x: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, slope: float | None, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives with respect to ``x``, weight and bias."""
    m = x.shape[dim]
    dz, xh = _masked(dy, y, slope), (x - mean) * rstd
    d_bias = dz.sum(dim=dim, keepdim=True)
    d_weight = (dz * xh).sum(dim=dim, keepdim=True)
    dx = (weight.unsqueeze(dim) * rstd) * (dz - d_bias / m - xh * (d_weight / m))
    return dx, d_weight.squeeze(dim), d_bias.squeeze(dim)


def norm_double_backward(
    vx: Tensor, dy: Tensor, x: Tensor, y: Tensor, mean: Tensor, rstd: Tensor,
    weight: Tensor, vw: Tensor, vb: Tensor, d_weight: Tensor, d_bias: Tensor, slope: float | None, dim: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the derivatives of ``<v, norm_backward(...)>`` with respect to ``dy``, ``x`` and the weight.

    ``d_weight`` and ``d_bias`` are what ``norm_backward`` returned: sums that need not be taken again.
    """
    m = x.shape[dim]
    vw, vb, w, z_xh, sum_z = (p.unsqueeze(dim) for p in (vw, vb, weight, d_weight, d_bias))
    dz, xh = _masked(dy, y, slope), (x - mean) * rstd
    sum_v, v_xh = vx.sum(dim=dim, keepdim=True), (vx * xh).sum(dim=dim, keepdim=True)
    v_pz = (vx * dz).sum(dim=dim, keepdim=True) - (sum_v * sum_z + z_xh * v_xh) / m  # <vx, P(dz)>
    scale = w * rstd
    d_dy = _masked(scale * (vx - sum_v / m - xh * (v_xh / m)) + vw * xh + vb, y, slope)
    # The derivative with respect to xh is g = from_v * vx + from_z * dz; back through xh it is rstd * P(g), and
    # through rstd alone -rstd**2 * xh * w * <vx, P(dz)> / m.
    from_v, from_z = -scale / m * z_xh, vw - scale / m * v_xh
    mean_g = (from_v * sum_v + from_z * sum_z) / m
    along_xh = (from_v * v_xh + from_z * z_xh + scale * v_pz) / m
    dx = rstd * (from_v * vx + from_z * dz - mean_g - xh * along_xh)
    return d_dy, dx, (rstd * v_pz).squeeze(dim)


def _bent(y: Tensor, slope: float | None) -> Tensor:
    if slope is None:
        return y
    return torch.where(y > 0, y, slope * y) if slope else y.relu()


def _masked(u: Tensor, y: Tensor, slope: float | None) -> Tensor:
    """Return the derivative of ``_bent`` times ``u``, from what it returned."""
    if slope is None:
        return u
    return torch.where(y > 0, u, slope * u if slope else 0.0)


def bent_along(u: Tensor, y: Tensor, slope: float | None) -> Tensor:
    """Return ``u`` times the slope of the (leaky) ReLU that returned ``y``, in one pass."""
    if slope is None:
        return u
    masked: Tensor = (
        torch.ops.aten.leaky_relu_backward(u, y, slope, True) if slope else torch.ops.aten.threshold_backward(u, y, 0)
    )
    return masked


def native_forward(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float | None, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``norm_forward`` does, by torch's own kernels where the rows come first."""
    if dim != 0:
        return norm_forward(x, weight, bias, eps, slope, dim)
    rows, shape = x.flatten(1), (1, *weight.shape)
    w, b, blocks = weight.flatten(), bias.flatten(), _blocks(len(rows))
    if blocks == 1:
        y, mean, rstd = torch.native_batch_norm(rows, w, b, None, None, True, 0.0, eps)
    else:
        mean, var = _statistics(rows, blocks)
        y, _, _ = torch.native_batch_norm(rows, w, b, mean, var, False, 0.0, eps)
        rstd = torch.rsqrt(var.add_(eps))
    if slope is not None:
        y = F.leaky_relu_(y, slope) if slope else y.relu_()
    return y.view_as(x), mean.view(shape), rstd.view(shape)


def _statistics(rows: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Return mean and variance over the rows of ``[m, C]``, to the last digits.

    Torch's kernel adds up one row after the other, so that the rounding grows with their number, and a network's
    derivative jumps where it moves a value over the ReLU's bend: 5 inner steps lost all digits but one. Blocks of
    rows are summed side by side, as if they were further channels, and then put together.
    """
    if not blocks:
        mean = rows.mean(0)
        return mean, (rows - mean).square_().mean(0)
    means, variances = torch.batch_norm_update_stats(rows.reshape(len(rows) // blocks, -1), None, None, 0.0)
    means = means.view(blocks, -1)
    mean = means.mean(0)
    off = means - mean
    return mean, torch.addcmul(variances.view(blocks, -1), off, off).mean(0)  # var_mean is far slower here, too


@functools.cache
def _blocks(m: int) -> int:
    """Return into how many equal blocks of 40 to 160 rows ``m`` rows go; 1 for fewer, 0 if they do not."""
    return next((b for b in range(-(-m // 160), -(-m // 40) + 1) if m % b == 0), 0)


def native_backward(
    dy: Tensor, x: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, slope: float | None, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``norm_backward`` does, by torch's own kernel where the rows come first."""
    if dim != 0:
        return norm_backward(dy, x, y, mean, rstd, weight, slope, dim)
    dz = bent_along(dy, y, slope)
    return _native_backward(dz, x, weight, mean, rstd, [True, True, True])


def _native_backward(
    dz: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weight * rstd * P(dz), the sums of dz * xh and of dz; empty tensors for those that are not wanted."""
    results = torch.ops.aten.native_batch_norm_backward(
        dz.flatten(1), x.flatten(1), weight.flatten(), None, None, mean.flatten(), rstd.flatten(), True, 0.0, wanted
    )
    shapes = (x.shape, weight.shape, weight.shape)
    dx, d_weight, d_bias = (r.view(shape) if ok else r for r, shape, ok in zip(results, shapes, wanted))
    return dx, d_weight, d_bias


def native_double_backward(
    vx: Tensor, dy: Tensor, x: Tensor, y: Tensor, mean: Tensor, rstd: Tensor,
    weight: Tensor, vw: Tensor, vb: Tensor, d_weight: Tensor, d_bias: Tensor, slope: float | None, dim: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return what ``norm_double_backward`` does, in whole passes of torch's own kernels where the rows come first."""
    if dim != 0:
        return norm_double_backward(vx, dy, x, y, mean, rstd, weight, vw, vb, d_weight, d_bias, slope, dim)
    m, z_xh, sum_z = x.shape[0], d_weight, d_bias
    dz = bent_along(dy, y, slope)
    d_dy, v_xh, sum_v = _native_backward(vx, x, weight, mean, rstd, [True, True, True])
    # The sum of vx * dz in one pass: it is what a weight's derivative would be.
    _, v_z, _ = _native_backward(dz, vx, weight, torch.zeros_like(mean), torch.ones_like(rstd), [False, True, False])
    mean, rstd = mean[0], rstd[0]
    v_pz = v_z - (sum_v * sum_z + z_xh * v_xh) / m
    scale = weight * rstd
    from_v, from_z = -scale / m * z_xh, vw - scale / m * v_xh
    mean_g = (from_v * sum_v + from_z * sum_z) / m
    along_x = rstd * (from_v * v_xh + from_z * z_xh + scale * v_pz) / m
    d_dy.addcmul_(x, vw * rstd).add_(vb - vw * rstd * mean)
    d_dy = bent_along(d_dy, y, slope)
    dx = torch.addcmul(rstd * (along_x * mean - mean_g), vx, rstd * from_v)
    dx.addcmul_(dz, rstd * from_z).addcmul_(x, -rstd * along_x)
    return d_dy, dx, rstd * v_pz


@dataclass(frozen=True)
class Kernels:
    """The three functions above, and on a card products of all tasks and their loss; None where torch makes them."""

    forward: Callable[..., tuple[Tensor, Tensor, Tensor]] = norm_forward
    backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = norm_backward
    double_backward: Callable[..., tuple[Tensor, Tensor, Tensor]] = norm_double_backward
    convolve: Callable[[Tensor, Tensor, Tensor | None, Pair, Pair], Tensor] | None = None
    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None
    cross_entropy: Callable[[Tensor, Tensor], Tensor] | None = None


NATIVE = Kernels(native_forward, native_backward, native_double_backward)


def triton_kernels(precision: str = "float32") -> Kernels:
    """Return the kernels of ``bench.network.card``, which take products of float32 as a run's ``precision`` says.

    Raises:
        ImportError: Triton is not there.
    """
    from bench.network.card import convolution, cross_entropy, normalisation

    exact = precision if precision in ("tf32", "tf32x3") else "ieee"
    return Kernels(
        normalisation.forward,
        normalisation.backward,
        normalisation.double_backward,
        functools.partial(convolution.convolve, precision=exact),
        functools.partial(convolution.linear, precision=exact),
        cross_entropy.cross_entropy,
    )


def available(device_type: str) -> str:
    """Return TRITON on a GPU with Triton, else EAGER."""
    return TRITON if device_type == "cuda" and importlib.util.find_spec("triton") is not None else EAGER


def choose(asked: str, device: torch.device, precision: str = "float32") -> tuple[Kernels, str]:
    """Return the kernels that were asked for and which they are; torch's own with a warning if those do not run."""
    if asked == EAGER:
        return NATIVE, EAGER
    try:
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            raise RuntimeError(f"they need a GPU, and this run is on a {device.type}")
        kernels = triton_kernels(precision)
        _try(kernels, device, _MOST.get(precision, 1e-5))
    except Exception as error:  # whatever a compiler may raise
        reason = str(error).strip().split("\n")[0][:200]
        log.warning("convolution and normalisation run slower, without Triton's kernels (%s)", reason)
        return NATIVE, f"{EAGER} ({reason})"
    return kernels, TRITON


def _try(kernels: Kernels, device: torch.device, most: float) -> None:
    """Have every kernel run once, for the width of the usual networks, and hold what it gives against torch in float64.

    Raises:
        RuntimeError: a result is off by more than ``most``, relative to its norm.
    """
    x, w, p, v = inputs = [
        torch.arange(math.prod(shape), device=device).remainder(1013).sin().view(shape)
        for shape in ((2, 2, 5, 5, _WIDTH), (2, _WIDTH, _WIDTH, 3, 3), (2, _WIDTH), (2, 18, _WIDTH))
    ]
    torchs = Kernels(convolve=by_patches, linear=linear, cross_entropy=_cross_entropy)
    for got, want in zip(_results(kernels, x, w, p, v), _results(torchs, *(t.double() for t in inputs)), strict=True):
        off = float((got.double() - want).norm() / want.norm().clamp(min=1e-30))
        if not off <= most:
            raise RuntimeError(f"they are off torch's own by a relative {off:.0e}")


def _results(kernels: Kernels, x: Tensor, w: Tensor, p: Tensor, v: Tensor) -> list[Tensor]:
    """Return what each kernel gives, its derivatives, and the derivatives of these."""
    convolve, mapped, loss = kernels.convolve, kernels.linear, kernels.cross_entropy
    assert convolve is not None
    assert mapped is not None
    assert loss is not None
    labels = torch.arange(v.shape[1], device=v.device).remainder(5).expand(len(v), -1)
    found = []
    for images, weight in ((x, w), (x[..., :1], w[:, :, :1])):
        found += _twice(lambda a, b, c: convolve(a, b, c, (2, 2), (1, 1)), images, weight / 24, p)
    found += _twice(mapped, x[:, :, 0, 0], w[:, :5, :, 0, 0] / 8, p[:, :5])
    found += _twice(lambda scores: loss(scores, labels), v[..., :5])
    x, scale, shift = v.sign() + 0.1 * v.cos(), 1 + 0.3 * p, 0.1 * p  # far from the bend, which rounding may cross
    y, mean, rstd = kernels.forward(x, scale, shift, 1e-5, 0.1, 1)
    dx, d_weight, d_bias = kernels.backward(v, x, y, mean, rstd, scale, 0.1, 1)
    twice = kernels.double_backward(dx, v, x, y, mean, rstd, scale, p, shift, d_weight, d_bias, 0.1, 1)
    return [*found, y, dx, d_weight, d_bias, *twice]


def _twice(function: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    leaves = [t.detach().contiguous().requires_grad_() for t in inputs]
    y = function(*leaves)
    first = torch.autograd.grad(((0.3 * y * y + y) * _wave(y)).sum(), leaves, create_graph=True)
    number = torch.stack([(g * _wave(g)).sum() for g in first]).sum()
    return [y.detach(), *(g.detach() for g in first), *torch.autograd.grad(number, leaves, materialize_grads=True)]


def _wave(like: Tensor) -> Tensor:
    return torch.arange(like.numel(), dtype=like.dtype, device=like.device).cos().view_as(like)


def _cross_entropy(scores: Tensor, right: Tensor) -> Tensor:
    return F.cross_entropy(scores.transpose(1, 2), right, reduction="none").mean(1)
