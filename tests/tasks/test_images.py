"""Images and windows on streams: scores on paper, the bounds of an episode, when a window draws and what it refuses."""

import itertools
import math

import pytest
import torch

from bench.api import BenchError, Episode
from bench.registry import DATASETS
from bench.tasks import drawing
from bench.tasks.drawing import ImagePool
from bench.tasks.images import ROTATIONS, Classification, ImageSet
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
        assert examples.x.shape == (4, 3 * k, 1, *stream.pool.pixels.shape[-2:])
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
    place = ((tasks.rotations * 30 + row) * 20)[..., None] + tasks.images
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


def images(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def made(pictures, **changes):
    """Return a data set of these pictures, its nine classes split in thirds."""
    third = {"meta_train": (0, 1, 2), "meta_val": (3, 4, 5), "meta_test": (6, 7, 8)}
    given = {"class_names": tuple("abcdefghi"), "splits": third, "pipeline": "made", "sha256": "none", **changes}
    return ImageSet("odd", pictures, **given)


UNEQUAL = [images(3 + c, 3, 6, 6, seed=c) for c in range(9)]
SHAPES = {
    "grey": (images(9, 4, 6, 6), (1, 6, 6)),
    "one channel": (images(9, 4, 1, 6, 6), (1, 6, 6)),
    "colour": (images(9, 4, 3, 6, 6), (3, 6, 6)),
    "wide": (images(9, 4, 4, 8), (1, 4, 8)),
    "unequal": (UNEQUAL, (3, 6, 6)),
    "unequal grey": ([images(3 + c, 6, 6) for c in range(9)], (1, 6, 6)),
    "many images": (images(9, 200, 2, 2), (1, 2, 2)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_tasks_hold_the_images_of_their_classes(case):
    """Grey or colour, square or not, classes of any size: support and query are different images of one class."""
    pictures, shape = SHAPES[case]
    source, episode = made(pictures), Episode(3, 1, 2)
    assert source.shape == shape
    pool = source.pool("meta_val", "none", CPU)
    stream = TaskStream(pool, episode, 0)
    batch, drawn = stream.batch(0, 50), pool.indices(stream.bits(stream.numbers(0, 50)), episode)
    own = [p.view(len(p), *shape).float() / 255 for p in pictures]
    for task in range(50):
        for label in range(3):
            c, places = drawn.classes[task, label], drawn.images[task, label]
            assert c in source.splits["meta_val"]
            assert len(set(places.tolist())) == 3
            assert torch.equal(batch.support.x[task, label], own[c][places[0]])
            assert torch.equal(batch.query.x[task, 2 * label : 2 * label + 2], own[c][places[1:]])


@pytest.mark.parametrize("case", ["unequal", "many images"])
def test_every_image_of_a_class_is_drawn_equally_often(case):
    source = made(SHAPES[case][0])
    pool = source.pool("meta_test", "none", CPU)
    stream = TaskStream(pool, Episode(3, 1, 1), 0)
    drawn = pool.indices(stream.bits(stream.numbers(0, 20_000)), Episode(3, 1, 1))
    for c in source.splits["meta_test"]:
        times = drawn.images[drawn.classes == c].flatten().bincount(minlength=source.counts[c]).double()
        expected = times.sum() / len(times)
        assert len(times) == source.counts[c]
        assert ((times - expected) ** 2 / expected).sum() < len(times) + 6 * (2 * len(times)) ** 0.5  # chi-square


def test_unequal_classes_may_be_turned():
    source = made(UNEQUAL)
    stream = TaskStream(source.pool("meta_train", "per_class", CPU), Episode(2, 1, 2), 0)
    drawn, batch = stream.pool.indices(stream.bits(stream.numbers(0, 30)), Episode(2, 1, 2)), stream.batch(0, 30)
    for task in range(30):
        c, turn, place = drawn.classes[task, 1], drawn.rotations[task, 1], drawn.images[task, 1, 0]
        assert torch.equal(batch.support.x[task, 1], torch.rot90(UNEQUAL[c][place], int(turn), (-2, -1)) / 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_turned_pictures_are_those_that_torch_turns(channels, monkeypatch):
    """Some at a time, the last of them fewer."""
    monkeypatch.setattr(drawing, "_AT_ONCE", 3)
    pictures = torch.randint(256, (8, channels, 5, 5), dtype=torch.uint8)
    expected = torch.cat([torch.rot90(pictures, turn, dims=(-2, -1)) for turn in range(4)])
    assert torch.equal(drawing.turned(pictures, 4), expected)


def test_pictures_that_are_not_turned_are_held_once():
    source = made(UNEQUAL)
    assert source.pool("meta_test", "none", CPU).pixels.data_ptr() == source.pixels.data_ptr()
    assert all(mine.data_ptr() == source.of_class(c).data_ptr() for c, mine in enumerate(source.images))


def test_classes_with_too_few_images_take_no_part_and_are_named():
    """Classes a, b, c have 3, 4 and 5 images."""
    source = made(UNEQUAL)
    source.check("meta_train", "none", Episode(2, 1, 3))
    (line,) = source.remarks("meta_train", Episode(2, 1, 3))
    assert line == (
        "odd/meta_train: 1 of 3 classes have fewer images than the 4 of a task and are left out"
        " (a smaller k_query keeps more): a (3)"
    )
    pool = source.pool("meta_train", "none", CPU)
    stream = TaskStream(pool, Episode(2, 1, 3), 0)
    assert set(pool.indices(stream.bits(stream.numbers(0, 50)), Episode(2, 1, 3)).classes.unique().tolist()) == {1, 2}
    for episode, accepted in (
        (Episode(3, 1, 3), "2 to 2 or a sum of at most 3 (--k-query)"),
        (Episode(2, 1, 4), "a sum of at most 4 (--k-query)"),
        (Episode(9, 1, 3), "2 to 2"),
    ):  # fmt: skip
        with pytest.raises(BenchError) as caught:
            source.check("meta_train", "none", episode)
        assert str(caught.value).startswith(f"n_way {episode.n_way}: odd/meta_train has ")
        assert str(caught.value).endswith(f"; accepted: {accepted}")


def test_a_picture_that_is_not_square_is_not_turned():
    wide = made(SHAPES["wide"][0])
    wide.check("meta_train", "none", Episode(3, 1, 1))
    with pytest.raises(BenchError, match="rotation 'pooled': odd/meta_train has pictures of 4 x 8; accepted: none"):
        wide.check("meta_train", "pooled", Episode(3, 1, 1))


BLANK = images(9, 4, 3, 6, 6)
BLANK[4, 2] = torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None]
GREY = images(9, 4, 6, 6)
SPLITS_OF = {"meta_train": (0, 1, 2), "meta_val": (3, 4, 5), "meta_test": (6, 7, 8)}
REFUSED = {
    "float": (GREY / 255, {}, "images are torch.float32; accepted: uint8, 0 to 255; (x * 255).round()"),
    "16 bit": (GREY.to(torch.int32), {}, "images are torch.int32; accepted: uint8, 0 to 255"),
    "channels last": (images(9, 4, 6, 6, 3), {}, "channels come first: x.movedim(-1, -3)"),
    "two channels": (images(9, 4, 2, 6, 6), {}, "with C 1 or 3"),
    "one image": (images(9, 6, 6), {}, "of shape (9, 6, 6); accepted: [classes, images_per_class, H, W]"),
    "an array": (GREY.numpy(), {}, "images of class 0 are ndarray; accepted: tensors"),
    "none": ([], {}, "there is no class"),
    "a class without images": ([images(0 if c == 4 else 3, 6, 6) for c in range(9)], {}, "images of class 4 are"),
    "two shapes": ([images(3, 6, 6 + c % 2) for c in range(9)], {}, "shapes [(6, 6), (6, 7)]; accepted: one shape"),
    "names twice": (GREY, {"class_names": ("x",) * 9}, "1 different names of 9"),
    "too few names": (GREY, {"class_names": ("x", "y")}, "9 classes of images and 2 different names"),
    "splits": (GREY, {"splits": {"train": (1,)}}, "splits are train; accepted: meta_train, meta_val, meta_test"),
    "empty split": (GREY, {"splits": {**SPLITS_OF, "meta_val": ()}}, "meta_val has no class"),
    "two splits": (GREY, {"splits": {**SPLITS_OF, "meta_val": (2,)}}, "class 2 (c) is in meta_train and meta_val"),
    "twice": (GREY, {"splits": {**SPLITS_OF, "meta_val": (3, 3)}}, "class 3 (d) is in meta_val twice"),
    "no such class": (GREY, {"splits": {**SPLITS_OF, "meta_val": (9,)}}, "names class 9; accepted: 0 to 8"),
    "blank": (BLANK, {}, "image 2 of class 4 (e) is blank, every pixel 1"),
    "turned, not square": (images(9, 4, 4, 8), {"rotations": ROTATIONS}, "pictures of 4 x 8 cannot be turned"),
    "no such rotation": (GREY, {"rotations": ("all",)}, "rotation 'all' is unknown; accepted: pooled, per_class, none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_set_of_images_is_refused_when_it_is_made(case):
    pictures, changes, words = REFUSED[case]
    with pytest.raises(BenchError) as caught:
        made(pictures, **changes)
    assert str(caught.value).startswith("odd: ")
    assert words in str(caught.value)
    assert "; accepted: " in str(caught.value)


def test_fewer_training_classes_are_always_among_more_whatever_their_order(toy_images):
    owned = toy_images.splits["meta_train"]
    kept = [set(toy_images.trained_on(n).splits["meta_train"]) for n in (1, 5, 10, len(owned))]
    assert [len(classes) for classes in kept] == [1, 5, 10, len(owned)]
    assert all(few < more for few, more in itertools.pairwise(kept))
    assert kept[-1] == set(owned)
    assert kept[1] != set(owned[:5]), "a hash decides, not the place in the file"
    few = toy_images.trained_on(5)
    assert [few.splits[split] for split in ("meta_val", "meta_test")] == [
        toy_images.splits[split] for split in ("meta_val", "meta_test")
    ]
    assert few.n_classes("meta_train", "pooled") == 20
    assert toy_images.trained_on(None) is toy_images


def test_training_classes_that_are_not_there_are_refused_in_words(toy_images):
    with pytest.raises(BenchError, match="train_classes 31: toy/meta_train has 30 classes; accepted: 1 to 30"):
        toy_images.trained_on(31)
    sine = DATASETS.get("sine")().load(None, None)
    assert sine.trained_on(None) is sine
    with pytest.raises(BenchError, match="train_classes 5: sine has no classes to leave out; accepted: all"):
        sine.trained_on(5)
