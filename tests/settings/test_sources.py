"""The data that a run is tested on beside that of training: which tasks these are, and what cannot be."""

import dataclasses

import pytest
import torch
from commands import SMALL
from places import PLUGINS, TOY

from bench.cli.arguments import arguments, place_of
from bench.cli.plan import plan
from bench.registry import load_plugin
from bench.settings.config import RunConfig
from bench.settings.sources import code_at_test, load_sources
from run_bench import main

CPU = torch.device("cpu")
SHIFTS = PLUGINS / "toy_shifts.py"
load_plugin(TOY)
load_plugin(SHIFTS)


def run(algo="fomaml", **changes):
    return RunConfig(**{"algo": algo, "dataset": "toy"} | changes)


def sources(config, folder):
    return load_sources(config, (folder, folder), folder)


def test_meta_test_comes_from_the_other_set_and_all_else_from_that_of_training(tmp_path):
    config = run(test_dataset="toy-other", test_n_way=3, test_k_shot=2)
    mixed, other = sources(config, tmp_path), sources(run(dataset="toy-other", n_way=3, k_shot=2), tmp_path)
    own = sources(run(), tmp_path)
    for split in ("meta_train", "meta_val"):
        assert mixed.stream(config, split, CPU).digest(20) == own.stream(run(), split, CPU).digest(20)
    there = mixed.stream(config, "meta_test", CPU)
    alone = other.stream(run(dataset="toy-other", n_way=3, k_shot=2), "meta_test", CPU)
    assert there.digest(20) == alone.digest(20)  # the same tasks as of a run that was trained there
    assert torch.equal(there.batch(0, 4).query.x, alone.batch(0, 4).query.x)
    owned = set(mixed.test.splits["meta_test"])
    drawn = there.pool.indices(there.bits(there.numbers(0, 50)), there.episode).classes
    assert set(drawn.flatten().tolist()) <= owned


def test_test_tasks_are_the_same_for_all_algorithms(tmp_path):
    streams = []
    for algo in ("reptile", "maml"):
        config = run(algo, test_dataset="toy-other", test_corruption="noise:3")
        streams.append(sources(config, tmp_path).stream(config, "meta_test", CPU).batch(3, 2))
    assert torch.equal(streams[0].support.x, streams[1].support.x)
    assert torch.equal(streams[0].query.x, streams[1].query.x)


def test_only_meta_test_is_corrupted(tmp_path):
    clean, noisy = run(), run(test_corruption="noise:3")
    for split, same in (("meta_train", True), ("meta_val", True), ("meta_test", False)):
        here, there = (sources(c, tmp_path).stream(c, split, CPU).batch(0, 2).query.x for c in (clean, noisy))
        assert torch.equal(here, there) == same


def test_what_is_otherwise_at_test_is_part_of_a_run_only_where_it_is_otherwise():
    plain = run()
    same = run(test_n_way=5, test_k_shot=1, test_corruption="noise:0")
    assert same == plain
    assert same.run_id == plain.run_id
    changes = [
        {"test_n_way": 4}, {"test_k_shot": 2}, {"test_corruption": "noise:1"}, {"test_corruption": "noise:1:query"},
        {"test_dataset": "toy-other"}, {"test_data_code": "edited"},
    ]  # fmt: skip
    assert len({run(**change).run_id for change in changes} | {plain.run_id}) == len(changes) + 1


def test_runs_are_called_as_they_were_before_there_were_shifts():
    """Made with the version before: no field of that day and no default may change."""
    config = RunConfig(algo="maml", dataset="glyphs", results=3, code="a", data_code="b", threads=1, device="cpu")
    assert config.run_id == "maml-glyphs-5w1s-quick-s0-d449a611df"


def test_the_code_of_a_test_covers_data_splits_images_and_corruption(tmp_path):
    def code(config, **changes):
        found = sources(config, tmp_path)
        return code_at_test(config, dataclasses.replace(found, test=dataclasses.replace(found.test, **changes)))

    other = run(test_dataset="toy-other")
    assert code(run(test_n_way=3)) is None
    noise, blur = (code(run(test_corruption=f"{kind}:1")) for kind in ("noise", "blur"))
    splits = {"meta_train": (0,), "meta_val": (1,), "meta_test": (2, 3)}
    codes = {noise, blur, code(other), code(other, sha256="altered"), code(other, splits=splits)}
    assert len(codes) == 5
    assert None not in codes


def planned(folder, *args):
    words = [*SMALL, "--plugin", str(SHIFTS), "--out", str(folder), *args]
    args = arguments(words)
    return plan(args, place_of(args, words))


def test_an_option_of_either_set_is_set_by_its_name_and_told_in_words(tmp_path):
    asked = (
        "--algos",
        "fomaml",
        "--test-dataset",
        "toy-sized",
        "--set",
        "image_size=28",
        "--test-corruption",
        "blur:2",
    )
    _, (config,) = planned(tmp_path, *asked)
    assert config.test_dataset_options == {"image_size": 28}
    assert config.dataset_options == {}
    assert config.setting == "5-way 1-shot (test: toy-sized (image_size=28), blur:2)"
    assert config.test_data_code


def test_the_same_set_by_another_name_is_no_shift(tmp_path):
    _, (config,) = planned(tmp_path, "--algos", "fomaml", "--test-dataset", "toy")
    assert config.test_dataset is None
    assert config.test_data_code is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--test-dataset", "toy-othre"], "unknown dataset 'toy-othre'. Did you mean 'toy-other'"),
        (["--test-dataset", "toy-sized"],
         "test_dataset 'toy-sized' has inputs of the shape (1, 32, 32), toy (1, 28, 28); accepted: data alike"
         " (--set image_size=28)"),
        (["--test-dataset", "sine"], "test_dataset 'sine' has inputs of the shape (1,), toy (1, 28, 28)"),
        (["--test-n-way", "16"], "n_way 16: toy/meta_test has 15 classes; accepted: 2 to 15"),
        (["--test-n-way", "1"], "test_n_way 1; accepted: 2 or more"),
        (["--test-k-shot", "20"], "k_shot 20 + k_query 1 is more than the 20 images per class of toy/meta_test"),
        (["--test-corruption", "noise:6"], "test_corruption 'noise:6'; accepted: KIND:STRENGTH with a strength from 0"),
        (["--test-corruption", "fog:1"], "unknown corruption 'fog'"),
        (["--set", "fomaml.test_dataset=toy-other", "--algos", "fomaml,maml"], "test_dataset differs between"),
        (["--test-data-root", __file__], "is not a folder; accepted: the one that holds the data"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_before_anything_is_trained(flags, words, tmp_path, capsys):
    assert main([*SMALL, "--plugin", str(SHIFTS), "--out", str(tmp_path), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(tmp_path.glob("**/run.json"))


def test_a_regression_is_not_corrupted(tmp_path, capsys):
    flags = ["--dataset", "sine", "--backbone", "sine-mlp", "--n-way", "1", "--test-corruption", "noise:1"]
    assert main([*flags, "--device", "cpu", "--out", str(tmp_path)]) == 2
    assert "test_corruption 'noise:1': sine has no images; accepted here: none" in capsys.readouterr().err
