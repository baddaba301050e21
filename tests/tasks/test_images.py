"""Images and windows on streams: scores on paper, the bounds of an episode, when a window draws and what it refuses."""

import math

import pytest
import torch

from bench.api import BenchError, Episode
from bench.tasks.drawing import ImagePool
from bench.tasks.images import Classification
from bench.tasks.stream import TaskStream, TaskWindow

CPU = torch.device("cpu")
EPISODE = Episode(n_way=3, k_shot=1, k_query=2)


@pytest.fixture
def stream(toy_images):
    return TaskStream(ImagePool(toy_images, "meta_train", "pooled", CPU), EPISODE, 5)


def test_loss_is_cross_entropy_of_every_example():
    """Logits 0 and ln 3 give probabilities 1/4 and 3/4."""
    outputs = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]], [[math.log(3), 0.0], [0.0, 0.0]]])  # [T = 2, n = 2, N]
    loss = Classification().loss(outputs, torch.tensor([[1, 0], [1, 1]]))
    torch.testing.assert_close(loss, torch.tensor([[-math.log(0.75), math.log(2)], [math.log(4), math.log(2)]]))


def test_a_score_that_is_not_finite_is_no_answer():
    outputs = torch.tensor([[[0.1, 0.2, 0.0], [0.3, 0.2, 0.1], [math.inf, 0.0, 0.0], [1.0, math.nan, 0.0]]])
    score = Classification().score(outputs, torch.tensor([[1, 1, 0, 0]]))
    assert score.dtype == torch.float64
    assert score[0, :2].tolist() == [1.0, 0.0]
    assert score[0, 2:].isnan().all()


@pytest.mark.parametrize(("rotation", "ways"), [("pooled", 120), ("per_class", 30), ("none", 30)])
def test_an_episode_may_take_all_ways_and_all_images(toy_images, rotation, ways):
    toy_images.check("meta_train", rotation, Episode(ways, 1, 1))
    toy_images.check("meta_train", rotation, Episode(2, 5, 15))
    pool = f"{toy_images.name}/meta_train"
    for n_way in (1, ways + 1):
        with pytest.raises(BenchError) as caught:
            toy_images.check("meta_train", rotation, Episode(n_way, 1, 1))
        assert str(caught.value) == f"n_way {n_way}: {pool} has {ways} classes; accepted: 2 to {ways}"
    with pytest.raises(BenchError) as caught:
        toy_images.check("meta_train", rotation, Episode(2, 6, 15))
    assert str(caught.value) == (
        f"k_shot 6 + k_query 15 is more than the 20 images per class of {pool}; accepted: a sum of at most 20"
    )


def test_images_and_labels_have_the_types_that_a_step_needs(stream):
    batch = stream.batch(0, 4)
    for examples, k in ((batch.support, 1), (batch.query, 2)):
        assert examples.x.shape == (4, 3 * k, 1, *stream.pool.images.shape[-2:])
        assert examples.x.dtype == torch.float32
        assert 0 <= examples.x.min() < 0.1
        assert 0.9 < examples.x.max() <= 1
        assert examples.y.dtype == torch.int64
        assert torch.equal(examples.y, torch.arange(3).repeat_interleave(k).expand(4, -1))


def test_another_dtype_is_that_of_the_images(toy_images):
    stream = TaskStream(ImagePool(toy_images, "meta_val", "none", CPU), EPISODE, 5)
    stream.dtype = torch.float64
    assert stream.batch(0, 1).query.x.dtype == torch.float64


def test_rows_of_the_hash_and_places_of_the_images_are_of_one_draw(stream):
    number = stream.numbers(9, 4)
    drawn, tasks = stream.draw(number), stream.pool.indices(stream.bits(number), EPISODE)
    assert torch.equal(drawn.rows, torch.cat([tasks.classes, tasks.rotations, tasks.images.flatten(1)], dim=1))
    row = torch.searchsorted(stream.pool.classes, tasks.classes)
    place = ((row * 4 + tasks.rotations) * 20)[..., None] + tasks.images
    assert torch.equal(drawn.parts[0], place[..., :1].flatten(1))
    assert torch.equal(drawn.parts[1], place[..., 1:].flatten(1))


@pytest.fixture
def draws(stream, monkeypatch):
    """The numbers of the first tasks of what was drawn from the stream."""
    found = []
    draw = stream.draw
    monkeypatch.setattr(stream, "draw", lambda number: found.append(int(number[0])) or draw(number))
    return found


def test_a_window_draws_only_what_it_does_not_hold(stream, draws):
    window = TaskWindow(stream, 8)
    for start, count in ((10, 3), (10, 8), (15, 3), (17, 1)):
        window.hold(start, count)
    assert draws == [10]
    for start, count in ((11, 8), (10, 1), (12, 6), (18, 1)):
        window.hold(start, count)
    assert draws == [10, 11, 10, 18]


def test_a_window_refuses_more_than_it_holds(stream, draws):
    with pytest.raises(ValueError, match=r"^9 tasks are wanted at once; this window holds 8$"):
        TaskWindow(stream, 8).hold(0, 9)
    assert draws == []


def test_a_stream_draws_in_blocks_unless_more_is_asked_for(stream, draws):
    assert stream.block == 256
    stream.batch(0, 2)
    stream.batch(254, 2)
    assert draws == [0]
    stream.batch(0, 300)
    stream.batch(100, 200)
    assert draws == [0, 0]


def test_a_window_stays_in_the_same_memory_and_gives_what_the_stream_gives(stream):
    window = TaskWindow(stream, 6)
    memory = None
    for start in (0, 20):
        window.hold(start, 6)
        number = stream.numbers(start + 2, 3)
        got, want = window.batch(number), stream.batch(start + 2, 3)
        assert torch.equal(got.support.x, want.support.x)
        assert torch.equal(got.query.x, want.query.x)
        for examples, n in ((got.support, 3), (got.query, 6)):
            assert torch.equal(examples.orders(2, n), stream.orders(number, 2, n))
        here = [t.data_ptr() for t in (*window._parts, *window._orders.values())]
        assert here == (memory or here)
        memory = here


def test_orders_of_a_window_that_moved_on_are_refused(stream):
    window = TaskWindow(stream, 4)
    window.hold(0, 4)
    support = window.batch(stream.numbers(0, 2)).support
    window.hold(4, 4)
    with pytest.raises(RuntimeError, match=r"^minibatch orders were asked for after the window had moved on$"):
        support.orders(1, 3)
    empty = TaskWindow(stream, 4)
    with pytest.raises(RuntimeError, match="moved on"):
        empty._held_orders(torch.zeros(1, dtype=torch.long), None, 1, 3)


def test_orders_of_a_streams_own_batch_can_be_asked_for_at_any_time(stream):
    support = stream.batch(0, 2).support
    expected = stream.orders(stream.numbers(0, 2), 1, 3)
    stream.batch(5000, 2)
    assert torch.equal(support.orders(1, 3), expected)


def test_two_passes_are_ordered_differently(stream):
    orders = stream.orders(stream.numbers(0, 50), 3, 6)
    assert orders.shape == (50, 3, 6)
    assert not torch.equal(orders[:, 0], orders[:, 1])
    assert not torch.equal(orders[:, 1], orders[:, 2])
