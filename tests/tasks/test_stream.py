"""Task streams: pure functions of the index, fair draws, and the same as a plain NumPy reading of the definition."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from reference_streams import chi_square, reference_bits, threshold

from bench.api import BenchError, Episode
from bench.tasks.drawing import ImagePool, grey_levels
from bench.tasks.stream import TaskStream

CPU = torch.device("cpu")
EPISODE = Episode(n_way=5, k_shot=2, k_query=3)
FIRST = "0cace34b315dbd3d82eec01b8e6d41931b9eebf55b02ffc01dcbad0f84c30a36"


def make_stream(images, rotation="pooled", split="meta_train", seed=0, episode=EPISODE):
    return TaskStream(ImagePool(images, split, rotation, CPU), episode, seed)


def indices(stream, start, count):
    """The images that the tasks start..start+count-1 hold."""
    return stream.pool.indices(stream.bits(stream.numbers(start, count)), stream.episode)


def reference_task(stream, number):
    """Task ``number``, from the definition alone."""

    def bits(purpose, n):
        return reference_bits(stream.key, number, purpose, n)

    def choose(values, bound):
        free, chosen = list(range(bound)), []
        for j, value in enumerate(values):
            chosen.append(free.pop(value * (bound - j) >> 32))
        return chosen

    pool, (n, k, q) = stream.pool, (stream.episode.n_way, stream.episode.k_shot, stream.episode.k_query)
    n_classes, n_turns, n_images = len(pool.classes), pool.turns, 20
    if pool.rotation == "pooled":
        drawn = choose(bits(0, n), n_classes * n_turns)
        rows, turns = [d // n_turns for d in drawn], [d % n_turns for d in drawn]
    else:
        rows, turns = choose(bits(0, n), n_classes), [v * n_turns >> 32 for v in bits(1, n)]
    keys = np.array(bits(2, n * n_images)).reshape(n, n_images)
    images = [sorted(range(n_images), key=lambda i, row=row: (row[i], i))[: k + q] for row in keys]
    orders = [np.lexsort((range(n * k), bits(3 + p, n * k))).tolist() for p in range(2)]
    return [pool.classes[r].item() for r in rows], turns, images, orders


@pytest.mark.parametrize("rotation", ["pooled", "per_class", "none"])
def test_tasks_equal_the_numpy_reference(toy_images, rotation):
    stream = make_stream(toy_images, rotation, seed=2**32 - 1)
    for number in (0, 255, 256, 2**32 + 5):
        got, (classes, turns, images, orders) = indices(stream, number, 1), reference_task(stream, number)
        assert got.classes[0].tolist() == classes
        assert got.rotations[0].tolist() == turns
        assert got.images[0].tolist() == images
        assert stream.batch(number, 1).support.orders(2, 10)[0].tolist() == orders


def test_tasks_do_not_depend_on_how_they_are_asked_for(toy_images):
    whole = make_stream(toy_images).batch(250, 12)
    stream = make_stream(toy_images)
    stream.batch(1000, 3)  # whatever was drawn before
    for start, count in ((250, 1), (253, 7), (261, 1), (250, 12)):
        part, here = stream.batch(start, count), slice(start - 250, start - 250 + count)
        assert torch.equal(part.support.x, whole.support.x[here])
        assert torch.equal(part.query.x, whole.query.x[here])
        assert torch.equal(part.support.orders(3, 10), whole.support.orders(3, 10)[here])


def test_minibatch_orders_of_more_passes_begin_with_those_of_fewer(toy_images):
    support = make_stream(toy_images).batch(0, 4).support
    assert torch.equal(support.orders(5, 25)[:, :2], support.orders(2, 25))


def test_streams_of_other_seeds_splits_and_episodes_differ(toy_images):
    streams = [
        make_stream(toy_images),
        make_stream(toy_images, seed=1),
        make_stream(toy_images, rotation="per_class"),
        make_stream(toy_images, episode=Episode(5, 1, 4)),
    ]
    drawn = [tuple(map(tuple, indices(s, 0, 50).images.flatten(1).tolist())) for s in streams]
    assert len(set(drawn)) == len(drawn)


def test_images_are_the_ones_that_the_indices_name(toy_images):
    stream = make_stream(toy_images)
    tasks, batch = indices(stream, 3, 2), stream.batch(3, 2)
    for t in range(2):
        for label in range(5):
            pictures = toy_images.images[tasks.classes[t, label], tasks.images[t, label]]
            pictures = torch.rot90(pictures, int(tasks.rotations[t, label]), dims=(-2, -1))[:, None] / 255
            assert torch.equal(batch.support.x[t][batch.support.y[t] == label], pictures[:2])
            assert torch.equal(batch.query.x[t][batch.query.y[t] == label], pictures[2:])


def test_classes_are_distinct_images_are_disjoint_and_of_the_split(toy_images):
    for rotation in ("pooled", "per_class", "none"):
        for split in ("meta_train", "meta_val", "meta_test"):
            tasks = indices(make_stream(toy_images, rotation, split), 0, 500)
            identity = tasks.classes * 4 + tasks.rotations
            assert (identity.sort(dim=1).values.diff(dim=1) > 0).all()
            assert (tasks.images.sort(dim=-1).values.diff(dim=-1) > 0).all()  # K+Q different images: none in both
            assert set(tasks.classes.unique().tolist()) <= set(toy_images.splits[split])
            if rotation != "pooled":
                assert (tasks.classes.sort(dim=1).values.diff(dim=1) > 0).all()  # no twins


def test_twins_of_a_character_may_meet_when_rotations_are_pooled(toy_images):
    classes = indices(make_stream(toy_images, "pooled"), 0, 500).classes
    assert (classes.sort(dim=1).values.diff(dim=1) == 0).any()


@pytest.mark.parametrize("rotation", ["pooled", "per_class", "none"])
def test_every_label_class_rotation_and_image_is_drawn_equally_often(toy_images, rotation):
    tasks = indices(make_stream(toy_images, rotation), 0, 6000)
    rows = tasks.classes // 2  # meta_train owns every other class
    turns = 1 if rotation == "none" else 4
    assert chi_square(rows * turns + tasks.rotations, 30 * turns) < threshold(30 * turns)
    assert chi_square(tasks.images, 20) < threshold(20)
    for label in range(5):  # no label prefers a class: the order of labels is uniform
        assert chi_square(rows[:, label], 30) < threshold(30)
        assert chi_square(tasks.images[:, label, 0], 20) < threshold(20)
    above = rows[:, 0] < rows[:, 1]
    if rotation != "pooled":
        assert chi_square(above.long(), 2) < threshold(2)


def test_stream_hash_is_that_of_the_plain_rows_and_ignores_batching(toy_images, monkeypatch):
    """The last digest was computed by the first version of this project: equal tasks must hash alike for ever."""
    stream = make_stream(toy_images)
    rows = indices(stream, 0, 40)
    plain = torch.cat([rows.classes, rows.rotations, rows.images.flatten(1)], dim=1).numpy().astype("<i4").tobytes()
    monkeypatch.setattr(stream, "block", 7)
    assert stream.digest(40) == hashlib.sha256(plain).hexdigest() == FIRST


def test_another_process_draws_the_same_tasks(toy_images):
    code = (
        "import torch; from bench.tasks.counter import *;"
        "print(distinct(random_bits(key_from(5, 'x'), 0, torch.arange(3), 5), 4400).tolist())"
    )
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("episode", "word"),
    [(Episode(121, 1, 1), "120 classes"), (Episode(5, 11, 10), "20 images per class"), (Episode(1, 1, 1), "2 to 120")],
)
def test_an_episode_that_does_not_fit_is_refused_in_words(toy_images, episode, word):
    with pytest.raises(BenchError, match=word):
        make_stream(toy_images, episode=episode)


def test_grey_values_are_looked_up_on_a_card_as_a_cpu_divides(toy_images):
    here, card = (ImagePool(toy_images, "meta_train", "pooled", torch.device("cpu")) for _ in range(2))
    card._levels = grey_levels(torch.device("cpu"))
    batches = [TaskStream(pool, EPISODE, 0).batch(0, 40) for pool in (here, card)]
    assert len(batches[0].query.x.unique()) > 20, "or this shows nothing"
    assert torch.equal(batches[0].query.x, batches[1].query.x)
    assert torch.equal(batches[0].support.x, batches[1].support.x)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_and_cpu_draw_the_same_tasks(toy_images):
    on_cpu = make_stream(toy_images).batch(0, 300)
    on_gpu = TaskStream(ImagePool(toy_images, "meta_train", "pooled", torch.device("cuda")), EPISODE, 0).batch(0, 300)
    assert torch.equal(on_gpu.query.x.cpu(), on_cpu.query.x)
    assert torch.equal(on_gpu.support.orders(3, 25).cpu(), on_cpu.support.orders(3, 25))
