"""Configuration files: the same plan as the flags that they stand for, and what is wrong with one in one line."""

import dataclasses
import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from places import TOY

from bench.api import BenchError
from bench.cli import configfile
from bench.cli.arguments import arguments
from bench.cli.command import main
from bench.cli.flags import flag_names, parser
from bench.cli.plan import plan
from bench.registry import load_plugin
from bench.runs.runner import Place
from bench.settings.config import CODE, OPTIONS, TUNING, RunConfig

BASE = ["--plugin", str(TOY), "--dataset", "toy", "--device", "cpu"]
FUZZ = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # a plan takes too long for shrinking
)


def test_every_flag_is_a_key():
    flags = {text for action in parser()._actions for text in action.option_strings}
    keys = {"--" + key.replace("_", "-") for key in configfile.keys(parser())}
    assert {f for f in flags if not f.startswith("--no-")} - keys == {"-h", "--help", "--config"}


WHOLE = st.integers(1, 4)
NUMBER = st.floats(1e-6, 10) | WHOLE
VALUES = {
    **dict.fromkeys(flag_names(), WHOLE),
    "eval_inner_steps": WHOLE | st.just("none"),
    "task_chunk": WHOLE | st.just("auto"),
    "test_tasks": st.integers(2, 9),
    "val_tasks": st.integers(2, 9),
    "meta_lr": NUMBER,
    "backbone": st.sampled_from(["mlp", "one-layer"]),
    "meta_optimizer": st.sampled_from(["adam", "sgd"]),
    "meta_lr_schedule": st.sampled_from(["constant", "linear", "cosine"]),
    "train_rotation": st.sampled_from(["pooled", "per_class", "none"]),
    "test_rotation": st.sampled_from(["pooled", "per_class", "none"]),
    "precision": st.sampled_from(["float32", "bf16"]),
    "cuda_graph": st.sampled_from(["auto", "off"]),
    "kernels": st.sampled_from(["auto", "eager"]),
    "device": st.just("cpu"),
    **{name: st.lists(st.integers(2, 4), min_size=1, max_size=2) for name in ("n_way", "k_shot", "k_query")},
    "seeds": st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=2),
    "algos": st.lists(st.sampled_from(["maml", "fomaml", "reptile"]), min_size=1, max_size=3, unique=True),
    "set": st.lists(st.sampled_from(["inner_lr=0.25", "inner_steps=2"]), max_size=2),
    "protocol": st.sampled_from(["quick", "matched", "paper"]),
    **{name: st.booleans() for name in ("fresh", "profile", "tensorboard", "quiet", "report", "list")},
    **{name: st.sampled_from(["a", "b/c", "/d", "~/e"]) for name in ("out", "data_root", "test_data_root", "log_file")},
    "jobs": WHOLE,
    "launcher": st.just("local"),
    "ray_address": st.just("auto"),
    **dict.fromkeys(("gpus_per_run", "cpus_per_run"), NUMBER),
    "exclusive": st.booleans(),
    "run_timeout": NUMBER,
    "tune": WHOLE,
    "tune_steps": WHOLE,
    "study": st.sampled_from(["cost", "sine"]),
    "vary": st.lists(st.sampled_from(["inner_steps=1,5", "n_way=5"]), max_size=2),
    "plugin": st.lists(st.just(str(TOY)), max_size=1),
    "dataset": st.sampled_from(["toy", "glyphs"]),
}
VALUES.pop("seed")


def flags_of(content):
    """The command line with the meaning of a file, written here a second time."""
    words = []
    for name, value in content.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words += [flag] if value else []
        elif name in ("set", "vary", "plugin"):
            words += [f"{flag}={v}" for v in value]
        else:
            words += [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return words


def test_all_flags_are_tried():
    assert set(VALUES) == set(configfile.keys(parser()))


@pytest.mark.uncounted
@FUZZ
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_a_file_says_what_the_flags_say(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("config")
    path = folder / "grid.toml"
    path.write_text(tomli_w.dumps(content))
    said = {
        n: v if n not in ("out", "data_root", "test_data_root", "log_file") or v[0] in "~/" else folder / v
        for n, v in content.items()
    }
    expected, found = arguments(flags_of(said)), arguments(["--config", str(path)])
    assert vars(found) == {**vars(expected), "config": path}


RUNS = [n for n in VALUES if n not in ("study", "vary", "plugin", "dataset", "out", "data_root", "list", "report")]


@pytest.mark.uncounted
@FUZZ
@given(st.fixed_dictionaries({}, optional={name: VALUES[name] for name in RUNS}))
def test_what_is_saved_asks_for_the_same_runs(tmp_path_factory, content):
    """Also where the protocol has settings of its own for an algorithm or a number of ways."""
    load_plugin(TOY)
    out = tmp_path_factory.mktemp("out")
    args = arguments([*BASE, *flags_of(content)])
    place = Place(out, out, (TOY,))
    try:
        asked, configs = plan(args, place)
    except BenchError as error:
        event(f"refused: {str(error).split()[0]}")
        return
    event("planned")
    configfile.save(args, place, configfile.resolved(args, asked, configs))
    again = arguments(["--config", str(out / "config.toml")])
    assert again.out.resolve() == out
    assert not again.fresh
    assert plan(again, place)[1] == configs


def test_saved_settings_hold_what_the_protocol_had_decided(tmp_path):
    """A later version of the protocol changes nothing of a grid on one setting."""
    load_plugin(TOY)
    args = arguments([*BASE, "--protocol", "paper", "--algos", "maml,reptile"])
    asked, configs = plan(args, Place(tmp_path, tmp_path, (TOY,)))
    found = configfile.resolved(args, asked, configs)
    grouped = {"algo", *OPTIONS, *CODE, *TUNING}
    fields = {f.name for f in dataclasses.fields(RunConfig)} - grouped
    decided = {text.split("=")[0] for text in found["set"]}
    for config in configs:
        for name in fields - {"seed", "protocol", "dataset"}:
            assert name in found or f"{config.algo}.{name}" in decided
        for name in (*config.hyperparameters, *config.backbone_options):
            assert f"{config.algo}.{name}" in decided


def test_flags_beside_a_file_override_it(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(
        'seeds = [0, 1]\nn-way = 20\nfresh = true\nmeta_steps = 3\nset = ["inner_lr=0.1", "maml.meta_lr=1"]\n'
    )
    flags = ["--config", str(path), "--seeds", "7", "--no-fresh", "--meta-lr", "2"]
    args = arguments([*flags, "--set", "inner_lr=0.2", "--set", "meta_steps=4"])
    assert (args.seed, args.n_way, args.fresh, args.meta_lr) == ("7", "20", False, "2")
    assert args.set == ["inner_lr=0.1", "inner_lr=0.2", "meta_steps=4"]  # the file's meta_lr would come after the flag


WRONG = [
    ("meta_stepz = 1", "unknown key in --config 'grid.toml' 'meta_stepz'", "Did you mean 'meta_steps'?"),
    ("config = 'x'", "unknown key in --config 'grid.toml' 'config'", ""),
    ("format = 2", "--config 'grid.toml' has format 2; this version of run_bench.py reads format 1", ""),
    ("n_way = ", "--config 'grid.toml' is not TOML: ", "Invalid value"),
    ("a: yaml\n", "--config 'grid.toml' is not TOML: ", "(YAML is not read)"),
    ("fresh = 1", "--config 'grid.toml': fresh is 1; accepted: true or false", ""),
    ("[n_way]\na = 1", "--config 'grid.toml': n_way holds {'a': 1}; accepted: a value, or a list of values", ""),
    ("n_way = true", "--n-way 'true'; accepted: a whole number", ""),
    ("meta_steps = [1, 2]", "--meta-steps '1,2'; accepted: a whole number", ""),
    ("algos = []", "--algos ''; accepted: values with single commas between them", ""),
    ("seeds = 2026-01-01", "--seeds '2026-01-01'; accepted: a whole number", ""),
    ('meta_steps = 3\nset = ["meta_steps=5"]', "meta_steps is given twice, as 3 and as 5 (--set); accepted: one", ""),
    (None, "--config 'grid.toml': No such file or directory; accepted: a TOML file", ""),
]


@pytest.mark.parametrize(("text", "words", "hint"), WRONG, ids=[str(text) for text, *_ in WRONG])
def test_what_is_wrong_with_a_file_is_one_line(text, words, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("grid.toml").write_text(text)
    assert main([*BASE, "--config", "grid.toml", "--out", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"run_bench.py: {words}")
    assert hint in line


def test_a_study_leaves_a_file_that_asks_for_it_again(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.cli.compare.warn_if_busy", lambda *given: None)
    args = ["--study", "sine", "--meta-steps", "3", "--seeds", "0,1", "--out", str(tmp_path), "--device", "cpu"]
    asked = []
    monkeypatch.setattr("bench.cli.study.run_all", lambda configs, *rest: asked.append(configs) or 130)
    main(args)  # which goes on to report what it finds: nothing
    saved = tmp_path / "study-sine" / "config.toml"
    assert tomllib.loads(saved.read_text())["study"] == "sine"
    main(["--config", str(saved)])
    assert asked[0] == asked[1]
    assert list(tmp_path.iterdir()) == [tmp_path / "study-sine"]


def test_what_a_command_has_left_is_not_mixed_with_another_protocol_or_shape(tmp_path):
    """Its settings were decided for one; algorithms may be left out, and values of a grid."""
    load_plugin(TOY)
    args = arguments([*BASE, "--algos", "maml,reptile", "--n-way", "2,3"])
    place = Place(tmp_path, tmp_path, (TOY,))
    asked, configs = plan(args, place)
    configfile.save(args, place, configfile.resolved(args, asked, configs))
    saved = ["--config", str(tmp_path / "config.toml")]
    fewer = arguments([*saved, "--algos", "reptile", "--n-way", "3", "--protocol", "quick"])
    assert [text for text in fewer.set if text.startswith("maml.")] == []
    assert plan(fewer, place)[1] == [c for c in configs if c.algo == "reptile" and c.n_way == 3]
    wrong = {
        "--protocol": "matched",
        "--n-way": "2,5",
        "--k-shot": "5",
        "--backbone": "conv4-pool",
        "--algos": "maml,joint",
    }
    for flag, value in wrong.items():
        with pytest.raises(BenchError, match=f"^{flag} '{value}' beside --config .*; accepted: that, or flags without"):
            arguments([*saved, flag, value])
    with pytest.raises(BenchError, match=r"^--backbone 'mlp' beside --config"):
        arguments([*saved, "--set", "maml.backbone=mlp"])


def test_a_wrong_name_in_a_file_is_not_lost_with_what_is_left_out(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text('algos = ["maml", "reptile"]\nset = ["malm.inner_lr=0.2", "reptile.inner_lr=0.3"]\n')
    assert arguments(["--config", str(path), "--algos", "maml"]).set == ["malm.inner_lr=0.2"]
