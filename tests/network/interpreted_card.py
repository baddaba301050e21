"""The kernels of ``bench.network.card`` against torch's own operations in float64, one task after the other.

``test_card.py`` runs this file in processes of its own: interpreted on the CPU (``TRITON_INTERPRET=1``, which Triton
must find when it is imported), and compiled where there is a card.
"""

import os
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from bench.api import Examples, TaskBatch
from bench.network.build import build_network
from bench.network.card import convolution, normalisation
from bench.network.card.convolution import convolve, linear
from bench.network.card.cross_entropy import cross_entropy
from bench.network.card.launches import Launches
from bench.network.kernels import Kernels, choose
from bench.network.model import Classifier
from bench.network.normalisation import normalise
from bench.network.stacked import TasksOutside
from bench.registry import create_algorithm, create_backbone

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
ROUNDING = 2e-6  # of float32, relative
TRITON = Kernels(normalisation.forward, normalisation.backward, normalisation.double_backward)

# tasks, images, height, width, channels, outputs, kernel, stride, padding
SHAPES = {
    "conv4's first layer, odd": (2, 3, 7, 6, 1, 16, (3, 3), (2, 2), (1, 1)),
    "colour, unpadded": (1, 2, 6, 5, 3, 20, (3, 3), (1, 1), (0, 0)),
    "conv4's others": (1, 2, 3, 3, 32, 64, (3, 3), (2, 2), (1, 1)),
    "wide": (1, 1, 2, 2, 16, 128, (3, 3), (1, 1), (1, 1)),
    "a shortcut that skips": (2, 1, 6, 5, 16, 5, (1, 1), (2, 2), (0, 0)),
    "nothing alike": (1, 3, 8, 9, 5, 7, (2, 3), (1, 2), (0, 2)),
    "a stride beyond the kernel": (1, 2, 7, 7, 48, 3, (2, 2), (3, 3), (1, 0)),
}


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def both(tensors, dtype=torch.float32):
    """Return leaves for the kernels, and the same values in float64 for torch."""
    ours = [t.to(DEVICE, dtype).requires_grad_() for t in tensors]
    return ours, [t.detach().double().cpu().requires_grad_() for t in ours]


def two_derivatives(y, leaves):
    """Return ``y``, and of a curved number made of it the first derivatives and the second along some direction."""
    along = torch.arange(y.numel(), dtype=y.dtype, device=y.device).cos().view_as(y)
    first = torch.autograd.grad((0.3 * y * y + y).mul(along).sum(), leaves, create_graph=True)
    directions = [torch.arange(g.numel(), dtype=g.dtype, device=g.device).add(1).sin().view_as(g) for g in first]
    number = sum((g * d).sum() for g, d in zip(first, directions, strict=True))
    return [y, *first, *torch.autograd.grad(number, leaves, materialize_grads=True)]


def assert_near(got, want, rounding=ROUNDING):
    for a, b in zip(got, want, strict=True):
        off = (a.detach().double().cpu() - b.detach()).norm() / b.detach().norm().clamp(min=1e-30)
        assert float(off) < rounding, [tuple(a.shape), float(off)]


def by_torch(x, w, stride, padding):
    return torch.stack(
        [F.conv2d(x[t].movedim(-1, 1), w[t], None, stride, padding).movedim(1, -1) for t in range(len(x))]
    )


def weights(n_tasks, out, channels, kernel):
    return numbers(1, n_tasks, out, channels, *kernel) / (channels * kernel[0] * kernel[1]) ** 0.5


@pytest.mark.parametrize("moving", [(0,), (1, 2), (0, 1, 2)], ids=["images", "weights", "both"])
def test_convolution_moves_with_what_it_is_given_and_its_tangent_is_led_back(moving):
    """Reverse over forward, as ``unroll=mixed`` takes it."""
    x, w, _ = given = [numbers(0, 2, 2, 4, 5, 3), weights(2, 4, 3, (3, 3)), numbers(2, 2, 4)]
    along = [t.flip(-1).cos() for t in given]
    ours, _ = both(given)
    with warnings.catch_warnings():  # torch's own, of what it loads at the first dual number
        warnings.simplefilter("ignore", FutureWarning)
        with forward_ad.dual_level():
            put = [forward_ad.make_dual(t, a.to(t)) if i in moving else t for i, (t, a) in enumerate(zip(ours, along))]
            tangent = forward_ad.unpack_dual(convolve(*put, (2, 1), (1, 1))).tangent
    led = torch.autograd.grad((tangent * tangent.detach().cos()).sum(), ours, materialize_grads=True)
    exact = [t.requires_grad_() for t in given]
    dx, dw, db = (along[i] if i in moving else torch.zeros_like(given[i]) for i in range(3))
    moved = by_torch(dx, w, (2, 1), (1, 1)) + by_torch(x, dw, (2, 1), (1, 1)) + db[:, None, None, None]
    wanted = torch.autograd.grad((moved * moved.detach().cos()).sum(), exact, materialize_grads=True)
    assert_near([tangent, *led], [moved, *wanted], 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_and_two_derivatives_are_those_of_torch(shape):
    n_tasks, n, height, width, channels, out, kernel, stride, padding = SHAPES[shape]
    tensors = (numbers(0, n_tasks, n, height, width, channels), weights(n_tasks, out, channels, kernel))
    ours, exact = both(tensors)
    got = two_derivatives(convolve(*ours, None, stride, padding), ours)
    assert_near(got, two_derivatives(by_torch(*exact, stride, padding), exact))


def test_it_takes_float64_too():
    ours, exact = both((numbers(0, 2, 2, 5, 5, 3), weights(2, 4, 3, (3, 3))), torch.float64)
    got = two_derivatives(convolve(*ours, None, (2, 2), (1, 1)), ours)
    assert_near(got, two_derivatives(by_torch(*exact, (2, 2), (1, 1)), exact), 1e-13)


def test_a_long_sum_by_weight_is_taken_in_parts(monkeypatch):
    monkeypatch.setattr(convolution, "_PART", 60)
    ours, exact = both((numbers(0, 1, 3, 7, 7, 3), weights(1, 4, 3, (3, 3))))
    got = two_derivatives(convolve(*ours, None, (1, 1), (1, 1)), ours)
    assert_near(got, two_derivatives(by_torch(*exact, (1, 1), (1, 1)), exact))


def with_bias(x, w, b, stride, padding):
    return by_torch(x, w, stride, padding) + b[:, None, None, None]


def test_weights_that_all_tasks_share_in_memory_are_not_copied():
    ours, exact = both((numbers(0, 2, 2, 5, 5, 3), numbers(1, 4, 3, 3, 3)))
    shared = [w.contiguous(memory_format=torch.channels_last).expand(2, 4, 3, 3, 3) for _, w in (ours, exact)]
    with Launches(running=False) as launches:
        convolve(ours[0], shared[0], None, (2, 2), (1, 1))
    assert launches.total == 1, launches.names
    got = two_derivatives(convolve(ours[0], shared[0], None, (2, 2), (1, 1)), ours)
    assert_near(got, two_derivatives(by_torch(exact[0], shared[1], (2, 2), (1, 1)), exact))


@pytest.mark.parametrize("part", [1024, 20])
def test_a_bias_is_added_and_its_derivatives_are_those_of_torch(part, monkeypatch):
    monkeypatch.setattr(convolution, "_PART", part)
    ours, exact = both((numbers(0, 2, 3, 5, 5, 1), weights(2, 4, 1, (3, 3)), numbers(2, 2, 4)))
    got = two_derivatives(convolve(*ours, (1, 1), (1, 1)), ours)
    assert_near(got, two_derivatives(with_bias(*exact, (1, 1), (1, 1)), exact))


@pytest.mark.parametrize("still", [(0,), (1,), (0, 1), (0, 2), (1, 2)])
def test_what_needs_no_gradient_gets_none_and_leaves_the_others_theirs(still):
    """As images, and weights that the inner loop leaves alone."""
    results = []
    for leaves in both((numbers(0, 1, 2, 3, 3, 2), weights(1, 3, 2, (3, 3)), numbers(2, 1, 3))):
        for place in still:
            leaves[place].requires_grad_(False)
        y = (convolve if leaves[0].dtype == torch.float32 else with_bias)(*leaves, (2, 2), (1, 1))
        results.append(two_derivatives(y, [leaf for leaf in leaves if leaf.requires_grad]))
    assert_near(*results)


@pytest.mark.parametrize("size", [(), (2, 3)])
def test_a_linear_layer_takes_images_as_they_lie(size):
    x, w = numbers(0, 1, 5, *size, 7), numbers(1, 1, 3, 7 * (size[0] * size[1] if size else 1))
    ours, exact = both((x, w, numbers(2, 1, 3)))

    def product(x, w, b):
        return (x.movedim(-1, 2).flatten(2) if size else x) @ w.mT + b[:, None]

    assert_near(two_derivatives(linear(*ours), ours), two_derivatives(product(*exact), exact))


def test_images_that_lie_otherwise_in_memory_and_weights_channels_last_are_convolved_alike():
    x, w = numbers(0, 2, 2, 3, 6, 6).movedim(2, -1), weights(2, 4, 3, (3, 3))
    last = w.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    ours, exact = both((x, last))
    assert not ours[0].is_contiguous()
    assert_near([convolve(*ours, None, (2, 2), (1, 1))], [by_torch(*exact, (2, 2), (1, 1))])


@pytest.mark.skipif(DEVICE.type == "cpu", reason="the interpreter multiplies the bits of bfloat16 as whole numbers")
def test_a_bf16_convolution_is_that_of_rounded_factors():
    """1 + 2**-9 is 1 in bfloat16."""
    x = torch.full((1, 1, 1, 1, 1), 1 + 2.0**-9, device=DEVICE)
    y = convolve(x, torch.full((1, 1, 1, 1, 1), 1 + 2.0**-9, device=DEVICE).bfloat16(), None, (1, 1), (0, 0))
    assert (y.dtype, y.item()) == (torch.float32, 1.0)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="the interpreter knows one precision")
def test_three_products_of_tf32_are_far_better_than_one():
    tensors = (numbers(0, 4, 8, 14, 14, 64), weights(4, 64, 64, (3, 3)))
    ours, exact = both(tensors)
    true = by_torch(*exact, (2, 2), (1, 1))
    errors = {}
    for precision in ("ieee", "tf32x3", "tf32"):
        y = convolve(*ours, None, (2, 2), (1, 1), precision).double().cpu()
        errors[precision] = float((y - true).norm() / true.norm())
    print("relative errors against float64:", errors)
    assert errors["ieee"] < 1e-6, errors
    assert errors["tf32x3"] < errors["tf32"] / 10, errors


def normalised(x, weight, bias, slope):
    """Every task by itself through ``F.batch_norm``."""
    parts = [F.batch_norm(x[t], None, None, weight[t], bias[t], training=True, eps=1e-5) for t in range(len(x))]
    y = torch.stack(parts)
    return y if slope is None else F.leaky_relu(y, slope)


@pytest.mark.parametrize("slope", [None, 0.0, 0.1])
@pytest.mark.parametrize("shape", [(3, 7, 4), (1, 300, 12)])
def test_normalisation_and_two_derivatives_are_those_of_torch(shape, slope):
    """The rows of the first fit into one step of a program, those of the others do not."""
    n_tasks, _, channels = shape
    ours, exact = both((numbers(0, *shape) + 3, numbers(1, n_tasks, channels), numbers(2, n_tasks, channels)))
    got = two_derivatives(normalise(*ours, 1e-5, slope, 1, TRITON), ours)
    assert_near(got, two_derivatives(normalised(*exact, slope), exact), 5e-6)


@pytest.mark.parametrize("n_shared", [1, 3])
def test_weights_that_lie_apart_or_are_shared_are_read_where_they_are(n_shared):
    """Parts of one buffer, as on a card; one row of it for all tasks, or a row for each."""
    whole, x = numbers(1, n_shared, 30), numbers(0, 3, 7, 4) + 3
    image, kernel = numbers(2, 3, 2, 4, 4, 1), numbers(3, 3, 4, 1, 3, 3)
    ours, exact = both((whole, x, image, kernel))

    def parts(whole):
        rows = whole.expand(3, 30)
        return rows[:, 2:6], rows[:, 11:15], rows[:, 20:24]

    def by_kernels(whole, x, image, kernel):
        weight, bias, third = parts(whole)
        with Launches() as launches:
            y = normalise(x, weight, bias, 1e-5, 0.1, 1, TRITON)
            z = convolve(image, kernel, third, (2, 2), (1, 1))
        assert not launches.names["aten::clone"], launches.names
        return torch.cat([y.flatten(), z.flatten()])

    def by_torch(whole, x, image, kernel):
        weight, bias, third = parts(whole)
        return torch.cat(
            [normalised(x, weight, bias, 0.1).flatten(), with_bias(image, kernel, third, (2, 2), (1, 1)).flatten()]
        )

    assert_near(two_derivatives(by_kernels(*ours), ours), two_derivatives(by_torch(*exact), exact), 5e-6)


def test_directions_that_lie_apart_are_taken_where_they_are():
    x, dy, vx = (numbers(i, 3, 7, 4).to(DEVICE, torch.float32) for i in range(3))
    rows = numbers(3, 3, 12).to(DEVICE, torch.float32)
    apart = [rows[:, 4 * i : 4 * i + 4] for i in range(3)]
    y, mean, rstd = normalisation.forward(x, apart[0], apart[1], 1e-5, 0.0, 1)
    sums = normalisation.backward(dy, x, y, mean, rstd, apart[0], 0.0, 1)[1:]
    found = [
        normalisation.double_backward(vx, dy, x, y, mean, rstd, weight, vw, vb, *sums, 0.0, 1)
        for weight, vw, vb in (apart, [a.contiguous() for a in apart])
    ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_mean_of_many_rows_far_from_zero_is_exact():
    """A sum of 1,000 numbers near 1,000 has rounding of some 0.01 in float32; their distances from the first do not."""
    x = (numbers(0, 1, 1000, 2) + 1000).to(DEVICE, torch.float32)
    one = torch.ones(1, 2, device=DEVICE)
    _, mean, rstd = normalisation.forward(x, one, one, 1e-5, None, 1)
    exact = x.double()
    assert float((mean - exact.mean(1, keepdim=True)).abs().max()) < 4e-5  # float32 knows 6e-5 apart there
    assert float((rstd * (exact.var(1, correction=0, keepdim=True) + 1e-5).sqrt() - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("shape", [(3, 7, 5), (1, 70, 3)])
def test_cross_entropy_and_three_derivatives_are_those_of_torch(shape):
    """Exponentials of such scores are beyond float32."""
    right = torch.arange(shape[0] * shape[1]).view(shape[:2]) % shape[2]
    [ours], [exact] = both((4 * numbers(0, *shape) + 200,))

    def by_torch(scores):
        return F.cross_entropy(scores.flatten(0, 1), right.flatten(), reduction="none").view(shape[:2]).mean(1)

    def by_kernels(scores):
        return cross_entropy(scores, right.to(DEVICE))

    assert_near(two_derivatives(by_kernels(ours), [ours]), two_derivatives(by_torch(exact), [exact]), 1e-5)
    assert_near(third_derivative(by_kernels(ours), ours), third_derivative(by_torch(exact), exact), 1e-5)


def third_derivative(loss, scores):
    direction = torch.arange(scores.numel(), dtype=scores.dtype, device=scores.device).cos().view_as(scores)
    number = loss.square().sum()
    for _ in range(2):
        [first] = torch.autograd.grad(number, scores, create_graph=True)
        number = (first * direction).sum()
    return torch.autograd.grad(number, scores)


def test_what_is_no_number_stays_none():
    x = torch.tensor([1.0, float("nan"), 2.0], device=DEVICE).view(1, 3, 1)
    one = torch.ones(1, 1, device=DEVICE)
    assert normalise(x, one, one, 1e-5, 0.0, 1, TRITON).isnan().all()


@pytest.mark.parametrize("unroll", ["higher", "mixed"][: 1 if DEVICE.type == "cpu" else 2])
@pytest.mark.parametrize("product", [None, torch.bfloat16][: 1 if DEVICE.type == "cpu" else 2])
def test_a_second_order_meta_gradient_is_that_of_patches_in_float64(product, unroll):
    kernels, which = choose("triton", DEVICE)
    assert which == "triton"
    network = build_network(create_backbone("conv4", filters=8), (1, 4, 4), 3, seed=0)
    x, y = numbers(0, 2, 6, 1, 4, 4), torch.arange(6).expand(2, 6) % 3
    found = []
    for chosen, dtype in ((Kernels(), torch.float64), (kernels, torch.float32)):
        task_loss = Classifier(network.to(DEVICE, dtype), chosen, TasksOutside, product if chosen is kernels else None)
        slow = {name: w.to(DEVICE) for name, w in task_loss.weights.items()}
        halves = [Examples(x[:, part].to(DEVICE, dtype), y[:, part].to(DEVICE)) for part in (slice(3), slice(3, 6))]
        maml = create_algorithm("maml", inner_lr=0.1, inner_steps=1, unroll=unroll if chosen is kernels else "higher")
        grads = maml.meta_grad(task_loss, slow, TaskBatch(*halves)).grads
        found.append(torch.cat([g.double().cpu().flatten() for g in grads.values()]))
    assert_near([found[1]], [found[0]], 1e-4 if product is None else 0.2)
