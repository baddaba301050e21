"""Configurations: ranges, types, protocols and the order in which settings override each other."""

import csv
import dataclasses
import hashlib
import itertools
import json
import tomllib

import pytest
from places import REPOSITORY, TOY

from bench.api import BenchError
from bench.cli.flags import parser
from bench.cli.plan import plan
from bench.registry import ALGORITHMS, algorithm_names, create_algorithm, load_plugin
from bench.runs.runner import Place
from bench.settings.config import TUNING, RunConfig, later_fields
from bench.settings.protocols import (
    FOLDER,
    Override,
    Preset,
    Protocol,
    check_overrides,
    check_taken,
    gaps,
    load_protocol,
    protocol_names,
    resolve,
)
from bench.settings.values import coerce

load_plugin(TOY)
IDENTITY = {"dataset": "toy", "n_way": 5, "k_shot": 1, "seed": 0, "device": "cpu", "threads": None}


def resolved(algo, protocol, sets=(), **flags):
    identity = {"algo": algo, **IDENTITY} | {k: flags.pop(k) for k in list(flags) if k in IDENTITY}
    return resolve(protocol, identity, flags, [Override.parse(text) for text in sets])


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("n_way", 0, "n_way 0; accepted: 1 or more"),
        ("meta_steps", 0, "meta_steps 0; accepted: 1 or more"),
        ("meta_lr", float("nan"), "meta_lr nan; accepted: finite numbers"),
        ("seed", 2**32, "accepted: 4294967295 or less"),
        ("meta_optimizer", "adamw", "meta_optimizer 'adamw'; accepted: sgd, adam"),
        ("hyperparameters", {"inner_steps": 0}, "maml.inner_steps 0; accepted: 1 or more"),
        ("hyperparameters", {"inner_lr": -0.1}, "maml.inner_lr -0.1; accepted: 0 or more"),
    ],
)
def test_values_out_of_range_are_named_with_what_is_accepted(field, value, words):
    with pytest.raises(BenchError) as error:
        RunConfig(algo="maml", **{field: value})
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("none", int | None, None),
        ("7", int | None, 7),
        ("true", bool, True),
        ("x", str, "x"),
    ],
)
def test_text_becomes_the_type_of_its_field(text, annotation, value):
    got = coerce("field", text, annotation)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation"), [("3.5", int), ("abc", float), ("yes", bool), (2.5, int), (True, int), (3, str)]
)
def test_text_of_another_type_is_refused(text, annotation):
    with pytest.raises(BenchError, match="accepted"):
        coerce("field", text, annotation)


def test_every_setting_changes_the_run_id():
    base = RunConfig(algo="maml")
    others = [
        RunConfig(algo="maml", meta_lr=2e-3),
        RunConfig(algo="maml", hyperparameters={"inner_lr": 0.2}),
        RunConfig(algo="maml", seed=1),
        RunConfig(algo="maml", device="cpu"),
    ]
    assert len({base.run_id, *(o.run_id for o in others)}) == 5
    assert RunConfig(algo="maml").run_id == base.run_id


def test_a_setting_of_later_days_leaves_the_names_of_runs_without_it_alone():
    base = RunConfig(algo="maml")
    then = {name: value for name, value in dataclasses.asdict(base).items() if name not in (*later_fields(), *TUNING)}
    content = json.dumps(then, sort_keys=True)
    assert base.run_id.endswith(hashlib.sha256(content.encode()).hexdigest()[:10])
    assert RunConfig(algo="maml", train_classes=50).run_id != base.run_id


def test_later_sources_override_earlier_ones():
    """Defaults < the algorithm's own < presets in order < flags < --set."""
    general = Preset({}, {"meta_lr": 0.5, "inner_steps": 7})
    special = Preset({"algo": "reptile", "n_way": 20}, {"meta_lr": 0.25, "inner_batch": 40})
    protocol = Protocol("made up", "", (general, special))
    assert resolved("reptile", Protocol("made up", "", ())).meta_optimizer == "sgd"  # Reptile's own run_defaults
    assert resolved("reptile", protocol).meta_lr == 0.5
    assert resolved("reptile", protocol, n_way=20).meta_lr == 0.25
    assert resolved("maml", protocol, n_way=20).meta_lr == 0.5
    assert resolved("reptile", protocol, n_way=20, meta_lr=0.125).meta_lr == 0.125
    assert (
        resolved("reptile", protocol, ["meta_lr=0.1", "reptile.inner_batch=3"], n_way=20, meta_lr=0.125).meta_lr == 0.1
    )
    got = resolved("reptile", protocol, ["reptile.inner_batch=3"], n_way=20).hyperparameters
    assert got == vars(create_algorithm("reptile", inner_steps=7, inner_batch=3))
    maml = resolved("maml", protocol, ["reptile.inner_steps=3"]).hyperparameters
    assert maml == vars(create_algorithm("maml", inner_steps=7))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inner_lr", "accepted: algo.field=value"),
        ("=3", "accepted: algo.field=value"),
        ("maml.inner_lrr=1", "Did you mean 'inner_lr'"),
        ("mam.inner_lr=1", "Did you mean 'maml'"),
        ("n_way=7", "unknown field in --set 'n_way'"),
    ],
)
def test_overrides_that_nobody_takes_are_refused_with_the_nearest_name(text, words):
    with pytest.raises(BenchError) as error:
        check_overrides([Override.parse(text)], ["maml", "reptile"])
    assert words in str(error.value)


def test_an_override_of_another_algorithms_field_is_refused():
    with pytest.raises(BenchError, match="inner_batch"):
        resolved("maml", Protocol("made up", "", ()), ["maml.inner_batch=3"])


@pytest.mark.parametrize("name", protocol_names())
@pytest.mark.parametrize("cell", [(5, 1), (5, 5), (20, 1), (20, 5)])
def test_every_protocol_resolves_for_every_algorithm_and_cell(name, cell):
    for algo in algorithm_names():
        config = resolved(algo, load_protocol(name), n_way=cell[0], k_shot=cell[1])
        assert (config.protocol, config.n_way, config.k_shot) == (name, *cell)


def test_the_fair_protocols_give_all_algorithms_the_same_tasks_and_budget():
    for name in ("quick", "matched"):
        runs = [resolved(algo, load_protocol(name)) for algo in ("reptile", "fomaml", "maml")]
        shared = (
            "meta_steps",
            "meta_batch",
            "k_query",
            "eval_k_query",
            "train_rotation",
            "test_rotation",
            "test_tasks",
        )
        assert len({tuple(getattr(r, f) for f in shared) for r in runs}) == 1
    matched = [resolved(algo, load_protocol("matched")) for algo in ("reptile", "fomaml", "maml")]
    assert (
        len({(r.meta_optimizer, r.meta_lr, r.meta_lr_schedule, r.hyperparameters["inner_steps"]) for r in matched}) == 1
    )


def test_the_inner_rates_of_matched_are_what_the_committed_search_found_to_one_digit():
    with (FOLDER / "tuned.csv").open() as file:
        chosen = {row["algo"]: json.loads(row["values"]) for row in csv.DictReader(file) if row["chosen"] == "1"}
    rates = {algo: values["inner_lr"] for algo, values in chosen.items() if "inner_lr" in values}
    assert {"reptile", "maml", "maml++", "meta-sgd", "cavia"} <= set(rates)
    for algo, rate in rates.items():
        given = resolved(algo, load_protocol("matched")).hyperparameters
        assert given["inner_lr"] == float(f"{rate:.0e}"), algo


@pytest.mark.parametrize("name", ["quick", "matched"])
@pytest.mark.parametrize("cell", [(5, 1), (5, 5), (20, 1), (20, 5)])
def test_reptile_trains_on_all_images_of_a_task(name, cell):
    run = resolved("reptile", load_protocol(name), n_way=cell[0], k_shot=cell[1])
    images = run.n_way * (run.k_shot + run.k_query)
    assert run.hyperparameters["inner_batch"] * run.hyperparameters["inner_steps"] == images


def test_edited_code_is_another_run(tmp_path):
    code = (REPOSITORY / "algorithms" / "fomaml.py").read_text()
    ids = []
    for n, lr in enumerate(("0.1", "0.2")):
        path = tmp_path / f"mine{n}.py"
        path.write_text(
            code.replace('"fomaml"', f'"mine{n}"').replace("    paper =", f"    inner_lr: float = {lr}\n\n    paper =")
        )
        load_plugin(path)
        config = resolved(f"mine{n}", load_protocol("quick"))
        assert config.hyperparameters["inner_lr"] == float(lr)
        ids.append(config.code)
        del ALGORITHMS._classes[f"mine{n}"]
    assert ids[0] != ids[1]


SR = {  # supervised-reptile's README (FIELD.md 3.2): its flags, typed here on their own
    5: {"meta_steps": 100_000, "inner_steps": 5, "inner_batch": 10, "inner_lr": 1e-3, "eval_inner_batch": 5},
    20: {"meta_steps": 200_000, "inner_steps": 10, "inner_batch": 20, "inner_lr": 5e-4, "eval_inner_batch": 10},
}
FINN = {  # MAML, appendix A.1, and cbfinn/maml (FIELD.md 3.3); the rate of a summed loss times the classes
    5: {"meta_batch": 32, "inner_steps": 1, "inner_lr": 0.4 * 5, "eval_inner_steps": 3},
    20: {"meta_batch": 16, "inner_steps": 5, "inner_lr": pytest.approx(0.1 * 20), "eval_inner_steps": 5},
}
NETWORKS = {
    "reptile": {"norm": "affine", "head": "flatten", "head_std": None},
    "maml": {"norm": "shift", "head": "mean", "head_std": 1.0},
    "fomaml": {"norm": "shift", "head": "mean", "head_std": 1.0},
}


@pytest.mark.parametrize("k_shot", [1, 5])
@pytest.mark.parametrize("n_way", [5, 20])
@pytest.mark.parametrize("algo", ["reptile", "fomaml", "maml"])
def test_the_paper_protocol_holds_the_published_settings(algo, n_way, k_shot):
    config = resolved(algo, load_protocol("paper"), n_way=n_way, k_shot=k_shot)
    expected = {"test_tasks": 10_000, "backbone": "conv4", "padding": "same", "norm_eps": 1e-3, "init": "glorot"}
    expected |= NETWORKS[algo] | {"filters": 64}
    if algo == "reptile":
        expected |= SR[n_way] | {"meta_batch": 5, "k_query": 10 - k_shot, "eval_k_query": 1, "eval_inner_steps": 50}
        expected |= {"inner_optimizer": "adam", "inner_state": "carry", "meta_optimizer": "sgd", "meta_lr": 1.0}
        expected |= {"meta_lr_schedule": "linear", "train_rotation": "pooled", "test_rotation": "none"}
    else:
        expected |= FINN[n_way] | {"meta_steps": 60_000, "k_query": k_shot, "eval_k_query": k_shot}
        expected |= {"meta_optimizer": "adam", "meta_lr": 1e-3, "meta_lr_schedule": "constant"}
        expected |= {"train_rotation": "per_class", "test_rotation": "per_class"}
    found = {**vars(config), **config.hyperparameters, **config.backbone_options}
    assert {name: found[name] for name in expected} == expected


def test_options_of_a_protocols_backbone_do_nothing_on_another_one():
    paper = load_protocol("paper")
    assert resolved("maml", paper, backbone="mlp").backbone_options == {}
    assert resolved("maml", paper, sets=["filters=32"]).network == (
        "conv4 (filters=32, padding=same, norm=shift, norm_eps=0.001, head=mean, head_std=1.0)"
    )
    with pytest.raises(BenchError, match="unknown field in --set maml on backbone mlp 'filters'"):
        resolved("maml", paper, sets=["maml.filters=32"], backbone="mlp")
    config = resolved("maml", paper, backbone="mlp")
    with pytest.raises(BenchError, match=r"--set filters: no such option of the backbone \(mlp\)"):
        check_taken([Override.parse("filters=32")], [config])


def test_protocol_files_say_what_they_are_for():
    assert protocol_names()[0] == "quick"
    for path in FOLDER.glob("*.toml"):
        assert tomllib.loads(path.read_text())["summary"]


def test_unknown_protocols_are_answered_with_the_nearest():
    with pytest.raises(BenchError, match="Did you mean 'matched'"):
        load_protocol("mached")


def test_what_a_protocol_has_for_other_shapes_alone_is_told():
    """Reptile's minibatches are made for 5 and 20 ways, 1 and 5 shots; in ``paper`` so are the queries of all."""
    shapes = ["n_way=5, k_shot=1", "n_way=5, k_shot=5", "n_way=20, k_shot=1", "n_way=20, k_shot=5"]
    for name in ("quick", "matched"):
        protocol = load_protocol(name)
        assert gaps(protocol, {"algo": "reptile", "n_way": 5, "k_shot": 3}) == {"inner_batch": shapes}
        for n_way, k_shot in itertools.product((5, 20), (1, 5)):
            assert gaps(protocol, {"algo": "reptile", "n_way": n_way, "k_shot": k_shot}) == {}
        assert gaps(protocol, {"algo": "maml", "n_way": 7, "k_shot": 3}) == {}
    paper = gaps(load_protocol("paper"), {"algo": "maml", "n_way": 20, "k_shot": 2})
    assert paper == {"k_query": ["k_shot=1", "k_shot=5"], "eval_k_query": ["k_shot=1", "k_shot=5"]}


def test_the_gap_is_warned_of_once_and_not_where_it_is_filled(tmp_path):
    place = Place(tmp_path, tmp_path, (TOY,))
    base = [
        "--dataset",
        "toy",
        "--backbone",
        "one-layer",
        "--device",
        "cpu",
        "--algos",
        "reptile,maml",
        "--k-shot",
        "3",
    ]
    told = []
    plan(parser().parse_args([*base, "--seeds", "0,1"]), place, told.append)
    (line,) = told
    assert "sets inner_batch of reptile for n_way=5, k_shot=1; " in line
    assert line.endswith("not for 5-way 3-shot, where it stays at 10; --set reptile.inner_batch=N decides")
    plan(parser().parse_args([*base, "--set", "reptile.inner_batch=6"]), place, told.append)
    assert len(told) == 1
