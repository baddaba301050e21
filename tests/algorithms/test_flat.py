"""All weights moved as one vector: the same bits as one by one, in both orders, and no copy where none is due."""

import pytest
import torch
from helpers import image_tasks, relative_error, small_classifier

from algorithms import flat
from algorithms.flat import Layout, means
from bench.registry import create_algorithm

RULES = [
    {"inner_optimizer": "sgd"},
    {"inner_optimizer": "momentum"},
    {"inner_optimizer": "adam"},
    {"inner_optimizer": "momentum", "inner_decay": 0.3},
    {"inner_optimizer": "adam", "inner_decay": 0.3},
]


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Have weights moved together, and mean values taken so, where that is asked for."""
    return lambda yes: monkeypatch.setattr(flat, "_on_gpu", lambda weights: yes)


def stacked(rng, dtype):
    """Weights of three tasks: a convolution's channels-last, a matrix, a vector, a single number."""
    shapes = {"conv": (5, 4, 3, 3), "matrix": (3, 7), "vector": (7,), "one": (1,)}
    w = {name: torch.randn(3, *shape, generator=rng, dtype=dtype) for name, shape in shapes.items()}
    w["conv"] = w["conv"].permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return w


@pytest.mark.parametrize("rates", [False, True])
@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", RULES, ids=lambda s: "-".join(map(str, s.values())))
def test_a_rule_leaves_the_same_bits_together_and_one_by_one(settings, dtype, tracked, rates, rng, as_on_a_gpu):
    begin, grads = stacked(rng, dtype), [stacked(rng, dtype) for _ in range(3)]
    own = {"conv": torch.rand(3, 1, 1, 1, 1, generator=rng, dtype=dtype), "matrix": stacked(rng, dtype)["matrix"]}
    algorithm = create_algorithm("maml", inner_lr=0.05, **settings)
    ends = []
    for together in (False, True):
        as_on_a_gpu(together)
        leaves = {name: w.clone().requires_grad_() for name, w in begin.items()}
        weights = {name: w * 1.0 if tracked else w for name, w in leaves.items()}
        state = {
            n: s[None].expand(3, *s.shape) for n, s in algorithm.state_of({k: w[0] for k, w in begin.items()}).items()
        }
        carry = {**state, "other": torch.ones(3)}
        for step, g in enumerate(grads):
            weights, carry = algorithm.by_rule(weights, g, {**own, "one": 0.5} if rates else {}, carry, step)
        end = {**weights, **carry}
        if tracked:
            total = sum((w * (w.detach() + 1)).sum() for w in weights.values())
            slopes = torch.autograd.grad(total, list(leaves.values()))
            end |= {f"slope/{name}": s for name, s in zip(leaves, slopes)}
        assert all(w.requires_grad and w.is_leaf != tracked for w in weights.values())
        ends.append(end)
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("maml", {}), ("maml", {"inner_optimizer": "adam"}), ("maml", {"inner_clip": 0.1}),
        ("fomaml", {"inner_optimizer": "momentum"}), ("maml++", {}), ("meta-sgd", {"inner_steps": 2}), ("cavia", {}),
        ("anil", {}), ("imaml", {"inner_steps": 2}), ("reptile", {"inner_batch": 5}), ("joint", {}),
        ("reptile", {"inner_optimizer": "adam", "inner_batch": 5, "inner_decay": 0.1, "inner_clip": 1.0}),
    ],
)  # fmt: skip
def test_meta_gradient_and_carry_are_those_of_one_weight_after_the_other(name, settings, rng, as_on_a_gpu):
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=3, size=8)
    algorithm = create_algorithm(name, **{"inner_lr": 0.05, "inner_steps": 3} | settings)
    network = task_loss.weights
    slow = {**network, **algorithm.extra_weights(network)}
    ends = []
    for together in (False, True):
        as_on_a_gpu(together)
        end = algorithm.meta_grad(task_loss, slow, tasks)
        ends.append({**end.grads, **end.carry, "loss": end.query_loss})
    assert ends[0].keys() == ends[1].keys()
    assert relative_error(ends[1], ends[0]) < 1e-12
    for n, w in slow.items():
        assert ends[1][n].shape == w.shape


def rows_of(layout, weights):
    """What the buffer is to hold: task by task the weights one after the other, each in its memory order."""
    blocks = {**weights, "conv": weights["conv"].permute(0, 1, 3, 4, 2)}
    rows = torch.cat([blocks[name].flatten(1) for name in layout.names], dim=1)
    return torch.cat([rows, rows[:, : layout.filling]], dim=1)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
def test_what_was_split_is_gathered_without_a_copy_and_anything_else_by_one(aligned, tracked, rng):
    weights = stacked(rng, torch.float64)
    if aligned:  # one that others come behind, and rows that are filled up
        weights["wide"] = torch.randn(3, 4, 8, generator=rng, dtype=torch.float64)
    layout = Layout(weights)
    assert (layout.names[0], layout.width) == (("wide", 256) if aligned else ("conv", 209))
    first = layout.gather(weights).requires_grad_(tracked) * 1.0
    assert torch.equal(first, rows_of(layout, weights))
    parts = layout.split(first)
    for name, w in weights.items():
        assert torch.equal(parts[name], w)
        assert parts[name][0].stride() == w[0].stride()
    assert layout.gather(parts).data_ptr() == first.data_ptr()
    detached = {n: p.detach() for n, p in parts.items()}
    assert layout.gather(detached).data_ptr() == first.data_ptr()
    for changed in ({"matrix": parts["matrix"] + 1}, {"one": torch.zeros(3, 2, dtype=torch.float64)[:, :1]}):
        again = layout.gather({**parts, **changed})
        assert again.data_ptr() != first.data_ptr()
        assert torch.equal(again[:, layout.filling :], rows_of(layout, {**parts, **changed})[:, layout.filling :])


@pytest.mark.parametrize("names", [("a",), ("b",), ("a", "c")])
def test_the_gradient_of_some_parts_is_theirs_and_zero_elsewhere(names, rng):
    sizes = {"a": 16, "b": 32, "c": 5}
    layout = Layout({name: torch.zeros(2, size) for name, size in sizes.items()})
    whole = torch.randn(2, layout.width, generator=rng, requires_grad=True)
    parts = layout.split(whole)
    (slope,) = torch.autograd.grad(sum((parts[n] ** 2).sum() for n in names), whole, create_graph=True)
    expected = {n: 2 * p if n in names else torch.zeros_like(p) for n, p in parts.items()}
    assert all(torch.equal(g, expected[n]) for n, g in layout.split(slope).items())
    (twice,) = torch.autograd.grad((slope[:, : sum(sizes.values())] * 3).sum(), whole)
    assert all(torch.equal(g, torch.full_like(g, 6.0 * (n in names))) for n, g in layout.split(twice).items())


def test_weights_that_all_tasks_begin_with_are_gathered_without_a_copy_and_lead_back_to_the_slow_ones(rng, as_on_a_gpu):
    as_on_a_gpu(True)
    slow = {name: w[0].clone().requires_grad_() for name, w in stacked(rng, torch.float64).items()}
    fast = create_algorithm("maml").start(slow, 3)
    assert list(fast) == list(slow)
    layout = Layout(fast)
    whole = layout.gather(fast)
    assert (whole.shape, whole.stride(0)) == ((3, 209), 0)
    assert whole.data_ptr() == fast["conv"].data_ptr()
    factors = torch.randn(3, layout.width, generator=rng, dtype=torch.float64)
    number = (whole * factors).sum() + sum((w**2).sum() for w in fast.values())
    slopes = torch.autograd.grad(number, list(slow.values()))
    for (name, w), slope in zip(slow.items(), slopes):
        torch.testing.assert_close(slope, layout.split(factors)[name].sum(0) + 6 * w)


def test_a_part_cut_off_from_the_whole_gets_no_gradient_through_it(rng):
    weights = stacked(rng, torch.float64)
    layout = Layout(weights)
    flat_leaf = layout.gather(weights).clone().requires_grad_()
    parts = layout.split(flat_leaf * 1.0)
    mixed = {**parts, "vector": parts["vector"].detach()}
    (slope,) = torch.autograd.grad(layout.gather(mixed).sum(), flat_leaf)
    assert layout.split(slope)["vector"].count_nonzero() == 0
    assert layout.split(slope)["matrix"].min() == 1


def test_numbers_of_one_task_far_apart_are_no_block(rng):
    lone = {"w": torch.randn(3, 5, generator=rng)[:, :1]}
    assert torch.equal(Layout(lone).gather(lone), lone["w"])


def test_rows_that_end_where_their_memory_does_are_copied_with_what_fills_them_up(rng):
    row = torch.randn(21, generator=rng).expand(3, 21)
    parts = {"a": row[:, :16], "b": row[:, 16:]}
    assert torch.equal(Layout(parts).gather(parts)[:, :21], row)


def test_weights_of_no_numbers_have_a_place_too(rng):
    weights = {"none": torch.zeros(2, 0), "five": torch.randn(2, 5, generator=rng), "wide": torch.randn(2, 16)}
    for names in (["none", "five"], ["none", "wide", "five"]):
        some = {name: weights[name] for name in names}
        layout = Layout(some)
        parts = layout.split(layout.gather(some))
        assert all(torch.equal(parts[name], w) for name, w in some.items())


@pytest.mark.parametrize("tracked", [False, True])
def test_parts_of_a_single_task_are_gathered_without_a_copy(tracked, rng):
    layout = Layout({"a": torch.zeros(1, 16), "b": torch.zeros(1, 3, 7)})
    whole = torch.randn(1, layout.width, generator=rng).requires_grad_(tracked) * 1.0
    again = layout.gather(layout.split(whole))
    assert torch.equal(again, whole)
    assert again.data_ptr() == whole.data_ptr()


def test_a_row_of_something_as_large_is_not_taken_for_all_of_it(rng):
    """By chance as many rows as there are tasks, each as long as the buffer's."""
    base = torch.randn(4, 4, generator=rng).requires_grad_()
    for row in (0, 1):
        part = {"w": (base * 1.0)[row].expand(4, 4)}
        assert torch.equal(Layout(part).gather(part), part["w"])


def test_what_does_not_adapt_begins_as_it_would_without(rng, as_on_a_gpu):
    as_on_a_gpu(True)
    slow = {name: w[0] for name, w in stacked(rng, torch.float32).items()}
    slow = {name: w.clone().requires_grad_() for name, w in slow.items()} | {"rate/one": torch.ones(1)}
    fast = create_algorithm("maml").start(slow, 3)
    assert list(fast) == list(slow)
    assert [w.requires_grad for w in fast.values()] == [True, True, True, True, False]


def test_a_part_that_tasks_share_among_others_that_they_do_not_is_copied(rng):
    layout = Layout(stacked(rng, torch.float64))
    parts = layout.split(torch.randn(3, layout.width, generator=rng, dtype=torch.float64))
    parts["vector"] = parts["vector"][:1].expand(3, -1)
    assert torch.equal(layout.gather(parts), rows_of(layout, parts))


def test_means_taken_together_have_values_and_memory_order_of_those_one_by_one(rng, as_on_a_gpu):
    weights = stacked(rng, torch.float64)
    as_on_a_gpu(False)
    apart = means(weights)
    as_on_a_gpu(True)
    for name, mean in means(weights).items():
        torch.testing.assert_close(mean, apart[name], rtol=1e-15, atol=1e-15)
        assert mean.shape == apart[name].shape


def test_inner_adam_of_reptile_says_that_it_has_no_derivative(rng):
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=2, size=8)
    slow = {name: w.requires_grad_() for name, w in task_loss.weights.items()}
    with pytest.raises(ValueError, match="no derivative; accepted: slow weights that require no gradient"):
        create_algorithm("reptile", inner_optimizer="adam").adapt(task_loss, slow, tasks.support)
