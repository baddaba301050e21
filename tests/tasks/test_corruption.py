"""Corruptions: answers known on paper, and the same images for everybody."""

import re

import pytest
import torch
import torch.nn.functional as F
from places import REPOSITORY
from torchvision.transforms.v2.functional import erase

from bench.api import BenchError, Episode
from bench.registry import DATASETS, load_plugin
from bench.tasks.corruption import CORRUPTIONS, STRONGEST, Corrupted, Corruption, register_corruption
from bench.tasks.counter import random_bits
from bench.tasks.drawing import ImagePool
from bench.tasks.stream import TaskStream

CPU = torch.device("cpu")
STRENGTHS = range(1, STRONGEST + 1)
EPISODE = Episode(n_way=3, k_shot=2, k_query=4)


def bits(purpose, n, tasks=2):
    return random_bits((1, 2), purpose, torch.arange(tasks), n)


def corrupted(kind, strength, x):
    return Corrupted(kind, strength).images(x, bits, query=True)


def stream(images, text=None, seed=0):
    what = None if text is None else Corrupted.parse(text)
    return TaskStream(ImagePool(images, "meta_test", "none", CPU), EPISODE, seed, what)


@pytest.fixture
def pictures(rng):
    """Two tasks of three random pictures of 8-bit grey, none of them symmetric."""
    return torch.randint(256, (2, 3, 1, 28, 28), generator=rng) / 255


def test_the_strongest_inversion_is_255_less_the_image_and_contrast_falls_evenly(pictures):
    x = (255 * pictures).round()
    torch.testing.assert_close(255 * corrupted("inverted", 5, pictures), 255 - x, atol=1e-3, rtol=0)
    for strength in STRENGTHS:  # contrast about the middle: 0.6, 0.2, -0.2, -0.6, -1
        wanted = 127.5 + (1 - 2 * strength / 5) * (x - 127.5)
        assert (255 * corrupted("inverted", strength, pictures) - wanted).abs().max() <= 0.5 + 1e-3


def test_the_strongest_turn_is_a_quarter_counter_clockwise_and_a_weaker_one_moves_a_dot_by_its_angle():
    x = torch.arange(784).remainder(251).view(1, 1, 1, 28, 28).expand(2, 3, -1, -1, -1) / 255
    torch.testing.assert_close(corrupted("turned", 5, x), torch.rot90(x, 1, (-2, -1)))
    dot = torch.zeros(2, 1, 1, 29, 29)
    dot[..., 14, 24] = 1  # ten pixels right of the centre
    for strength in STRENGTHS:
        y = corrupted("turned", strength, dot)[0, 0, 0]
        angle = torch.deg2rad(torch.tensor(18.0 * strength))
        place = torch.arange(29.0) - 14
        mean = [float((y.sum(dim=1 - d) * place).sum() / y.sum()) for d in (0, 1)]  # down, right
        assert mean == pytest.approx([-10 * angle.sin().item(), 10 * angle.cos().item()], abs=0.35)


def test_a_blur_keeps_the_mean_of_what_lies_away_from_the_border_and_has_the_stated_width():
    dot = torch.zeros(2, 1, 1, 57, 57)
    dot[..., 28, 28] = 1
    for strength in STRENGTHS:
        y = CORRUPTIONS.get("blur")().apply(dot, strength, None)[0, 0, 0]  # before it is rounded to 256 levels
        assert float(y.sum()) == pytest.approx(1, abs=1e-5)
        place = torch.arange(57.0) - 28
        sd = float((y.sum(dim=0) * place.square()).sum().sqrt())
        assert sd == pytest.approx(strength * 57 / 56, rel=0.03)  # twice that at 28 pixels; its tails are cut


def test_noise_has_the_stated_deviation_and_one_pattern_at_every_strength():
    grey = torch.full((2, 8, 1, 56, 56), 0.5)
    patterns = []
    for strength in STRENGTHS:
        added = CORRUPTIONS.get("noise")().apply(grey, strength, lambda n: bits(1, n)) - grey
        assert float(added.mean()) == pytest.approx(0, abs=0.003 * strength)
        assert float(added.std()) == pytest.approx(0.1 * strength, rel=0.02)
        patterns.append(added / strength)
    torch.testing.assert_close(patterns[0], patterns[-1], atol=1e-6, rtol=1e-4)
    assert not torch.equal(patterns[0][0], patterns[0][1])  # of another task
    assert not torch.equal(patterns[0][0, 0], patterns[0][0, 1])  # of another image
    kurtosis = float((patterns[0] / 0.1).pow(4).mean())
    assert kurtosis == pytest.approx(3, rel=0.05)


def test_an_occlusion_is_one_black_square_of_the_stated_area_somewhere_within_the_image():
    white = torch.ones(2, 40, 3, 30, 20)
    starts = set()
    for strength in STRENGTHS:
        y = corrupted("occlusion", strength, white)
        height, width = (round((0.1 * strength) ** 0.5 * side) for side in (30, 20))
        for picture in y.flatten(0, 1):
            top, left = (int(k) for k in (picture[0] == 0).nonzero()[0])
            torch.testing.assert_close(picture, erase(torch.ones(3, 30, 20), top, left, height, width, torch.zeros(1)))
            starts.add((strength, top, left))
    assert len(starts) > 100


@pytest.mark.parametrize("kind", CORRUPTIONS.names())
def test_every_strength_is_other_images_of_the_same_tasks_whatever_the_batch_and_what_was_drawn(kind, toy_images):
    clean = stream(toy_images)
    weaker = clean.batch(0, 6)
    for strength in STRENGTHS:
        there = stream(toy_images, f"{kind}:{strength}")
        assert there.digest(6) == clean.digest(6)
        whole = there.batch(0, 6)
        assert (255 * whole.query.x).round().div(255).equal(whole.query.x)
        for part in ("support", "query"):
            mine, before = getattr(whole, part), getattr(weaker, part)
            assert torch.equal(mine.y, before.y)
            assert mine.x.shape == before.x.shape
            assert not torch.equal(mine.x, before.x)
        torch.manual_seed(strength)
        alone = [there.batch(number, 1) for number in (4, 2)]
        for number, task in zip((4, 2), alone):
            assert torch.equal(task.support.x[0], whole.support.x[number])
            assert torch.equal(task.query.x[0], whole.query.x[number])
        weaker = whole


def test_noise_depends_on_the_seed_and_differs_between_support_and_query(toy_images):
    one = stream(toy_images, "noise:3").batch(0, 1)
    assert not torch.equal(one.support.x, stream(toy_images, "noise:3", seed=1).batch(0, 1).support.x)
    grey = torch.full((2, 3, 1, 28, 28), 0.5)
    made = [Corrupted("noise", 1).images(grey, bits, query=query) for query in (False, True)]
    assert not torch.equal(*made)


def test_of_queries_alone_support_images_stay(toy_images):
    clean, there = (stream(toy_images, text).batch(0, 2) for text in (None, "noise:3:query"))
    assert torch.equal(clean.support.x, there.support.x)
    both = stream(toy_images, "noise:3").batch(0, 2)
    assert torch.equal(there.query.x, both.query.x)
    assert not torch.equal(there.support.x, both.support.x)


def test_strength_0_is_none_and_text_is_read_back():
    assert Corrupted.parse("noise:0") is None
    assert Corrupted.parse("noise:0:query") is None
    for text in ("noise:3", "blur:5:query"):
        assert str(Corrupted.parse(text)) == text


@pytest.mark.parametrize("text", ["noise", "noise:6", "noise:-1", "noise:2.5", ":3", "noise:3:support", "noise:٣", ""])
def test_what_is_no_corruption_is_refused_in_one_line(text):
    with pytest.raises(BenchError) as refused:
        Corrupted.parse(text)
    assert str(refused.value).startswith(f"test_corruption {text!r}; accepted: KIND:STRENGTH with a strength from 0")


def test_an_unknown_kind_and_data_without_images_are_refused(toy_images, tmp_path):
    with pytest.raises(BenchError, match=r"unknown corruption 'noize'\. Did you mean 'noise'"):
        stream(toy_images, "noize:1")
    sine = DATASETS.get("sine")().load(tmp_path, tmp_path)
    with pytest.raises(BenchError, match="test_corruption 'noise:1': sine has no images"):
        Corrupted("noise", 1).check(sine)


def test_a_corruption_of_a_plugin_is_one_class_and_one_of_another_shape_is_refused(monkeypatch, pictures):
    monkeypatch.setattr(CORRUPTIONS, "_classes", dict(CORRUPTIONS._classes))

    @register_corruption("dark")
    class Dark(Corruption):
        def apply(self, x, strength, bits):
            return x * (1 - strength / 5)

    @register_corruption("small")
    class Small(Corruption):
        def apply(self, x, strength, bits):
            return F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])

    assert not corrupted("dark", 5, pictures).any()
    with pytest.raises(BenchError, match="corruption 'small' made"):
        corrupted("small", 1, pictures)


def test_the_guides_corruption_is_a_plugin(tmp_path, monkeypatch):
    text = (REPOSITORY / "docs" / "guides" / "shift.md").read_text(encoding="utf-8")
    file = tmp_path / "my_fog.py"
    file.write_text(re.search(r"runs this file -->\n```python\n(.*?)```", text, re.DOTALL)[1])
    monkeypatch.setattr(CORRUPTIONS, "_classes", dict(CORRUPTIONS._classes))
    load_plugin(file)
    black = torch.zeros(2, 3, 1, 4, 4)
    assert corrupted("my-fog", 4, black).unique().tolist() == pytest.approx([0.6])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", CORRUPTIONS.names())
def test_a_gpu_makes_the_same_images(kind, toy_images):
    what = Corrupted(kind, 3)
    here, there = (
        TaskStream(ImagePool(toy_images, "meta_test", "none", torch.device(d)), EPISODE, 0, what).batch(0, 20)
        for d in ("cpu", "cuda")
    )
    difference = (here.query.x - there.query.x.cpu()).abs()
    assert difference.max() <= 1.01 / 255  # a value halfway between two levels may be rounded to either
    assert (difference > 0).double().mean() < 1e-3
