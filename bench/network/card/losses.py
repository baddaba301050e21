"""Cross-entropy of every task, the mean over its examples, with two derivatives, each one launch, in Triton.

Scores are ``[T, n, O]``, right classes ``[T, n]``, a task's ``far`` behind the last one's, and ``dy [T]``, likewise by
``step``. A program takes one task and walks its examples BM at a time.
"""

import triton
import triton.language as tl


@triton.jit
def _softmax(scores, known):
    """Return the log of what each example's exponentials add up to, and their shares."""
    highest = tl.max(scores, 1)
    powers = tl.where(known, tl.exp(scores - highest[:, None]), 0.0)
    total = tl.sum(powers, 1)
    return highest + tl.log(total), powers / total[:, None]


@triton.jit
def _examples(
    scores, right, task, first, n, far, O: tl.constexpr, BM: tl.constexpr, BO: tl.constexpr
):  # fmt: skip
    """Return of BM examples where their scores lie, which are there, the scores, and the right classes."""
    m, o = first + tl.arange(0, BM), tl.arange(0, BO)
    known, at = (m < n)[:, None] & (o < O)[None, :], task * (n * O) + m[:, None] * O + o[None, :]
    x = tl.load(scores + at, mask=known, other=-float("inf"))
    x = tl.where((m < n)[:, None], x, 0.0)
    return m, known, at, x, tl.load(right + task * far + m, mask=m < n, other=0)


@triton.jit(do_not_specialize=["n", "far"])
def forward(scores, right, loss, n, far, O: tl.constexpr, BM: tl.constexpr, BO: tl.constexpr):
    """Write the mean of every task, ``loss [T]``."""
    task, o = tl.program_id(0).to(tl.int64), tl.arange(0, BO)
    total = tl.zeros((BM,), scores.dtype.element_ty)
    for first in range(0, n, BM):
        m, _, _, x, label = _examples(scores, right, task, first, n, far, O, BM, BO)
        log_total, _ = _softmax(x, (o < O)[None, :])
        own = tl.sum(tl.where(o[None, :] == label[:, None], x, 0.0), 1)
        total += tl.where(m < n, log_total - own, 0.0)
    tl.store(loss + task, tl.sum(total, 0) / n)


@triton.jit(do_not_specialize=["n", "far", "step"])
def backward(dy, scores, right, dx, n, far, step, O: tl.constexpr, BM: tl.constexpr, BO: tl.constexpr):
    """Write ``dx``, the derivative with respect to the scores, from ``dy [T]``."""
    task, o = tl.program_id(0).to(tl.int64), tl.arange(0, BO)
    each = tl.load(dy + task * step) / n
    for first in range(0, n, BM):
        _, known, at, x, label = _examples(scores, right, task, first, n, far, O, BM, BO)
        _, shares = _softmax(x, (o < O)[None, :])
        tl.store(dx + at, each * (shares - tl.where(o[None, :] == label[:, None], 1.0, 0.0)), mask=known)


@triton.jit(do_not_specialize=["n", "far", "step"])
def double_backward(
    v, dy, scores, right, d_dy, dx, n, far, step, O: tl.constexpr, BM: tl.constexpr, BO: tl.constexpr
):  # fmt: skip
    """Write the derivatives of ``<v, backward(...)>`` with respect to ``dy`` and the scores."""
    task, o = tl.program_id(0).to(tl.int64), tl.arange(0, BO)
    each = tl.load(dy + task * step) / n
    total = tl.zeros((BM,), scores.dtype.element_ty)
    for first in range(0, n, BM):
        m, known, at, x, label = _examples(scores, right, task, first, n, far, O, BM, BO)
        _, shares = _softmax(x, (o < O)[None, :])
        along = tl.load(v + at, mask=known, other=0.0)
        mean = tl.sum(shares * along, 1)
        own = tl.sum(tl.where(o[None, :] == label[:, None], along, 0.0), 1)
        total += tl.where(m < n, mean - own, 0.0)
        tl.store(dx + at, each * shares * (along - mean[:, None]), mask=known)
    tl.store(d_dy + task, tl.sum(total, 0) / n)
