"""What is searched, what Optuna is asked, and a search as a protocol."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
from made_runs import make_row
from places import PLUGINS, TOY

from bench.api import BenchError, Space
from bench.records.columns import CurvePoint
from bench.records.run import write_run
from bench.records.tuning import Search, Trial, load_searches, write_search
from bench.registry import ALGORITHMS, load_plugin, search_spaces
from bench.runs.runner import Place
from bench.settings import protocols
from bench.settings.config import TUNING_SEED, RunConfig
from bench.settings.protocols import Override, load_protocol, resolve
from bench.studies.tuning import preset
from bench.studies.tuning.question import questions_of, with_values
from bench.studies.tuning.search import Trials, chosen
from bench.studies.tuning.storage import Study
from bench.studies.tuning.trial import PRUNED

LR = Space(1e-4, 1e-1, log=True, choices=None)


@pytest.fixture(scope="module", autouse=True)
def ranged():
    load_plugin(TOY)
    if "ranged" not in ALGORITHMS.names():
        load_plugin(PLUGINS / "ranged.py")
    return ALGORITHMS.get("ranged")


def config(algo="ranged", protocol="quick", sets=(), **flags):
    identity = {"algo": algo, "dataset": "toy", "n_way": 5, "k_shot": 1, "seed": 0, "device": "cpu", "threads": 1}
    identity |= {name: flags.pop(name) for name in list(flags) if name in identity}
    return resolve(load_protocol(protocol), identity, flags, [Override.parse(text) for text in sets])


def question(run, fixed=(), steps=None, sha="x"):
    return questions_of([run], {run.algo: fixed}, steps, sha)[run.run_id]


def test_an_algorithm_is_searched_over_what_it_declares_and_its_meta_lr(ranged):
    assert list(search_spaces(ranged)) == ["inner_lr", "inner_steps", "fuse"]
    assert question(config()).values == {"meta_lr": 0.004, "inner_lr": 0.1, "inner_steps": 2, "fuse": "whole"}
    assert list(question(config("protonet")).spaces) == ["meta_lr"]
    assert "meta_lr" not in question(config("scratch")).spaces  # which has no use for one
    assert list(question(config(), ["meta_lr", "fuse"]).spaces) == ["inner_lr", "inner_steps"]


def test_a_range_is_widened_to_hold_what_the_protocol_has():
    assert question(config("reptile", "smoke")).spaces["meta_lr"].high == 1.0
    wide = question(config(sets=["inner_steps=9", "inner_lr=0.001"])).spaces
    assert (wide["inner_steps"].low, wide["inner_steps"].high) == (1, 9)
    assert (wide["inner_lr"].low, wide["inner_lr"].high) == (0.001, 1.0)
    with pytest.raises(BenchError, match=r"ranged\.meta_lr 0\.0 cannot begin a search"):
        question(config(meta_lr=0.0))


def test_another_setting_is_another_search_but_not_other_threads_seeds_or_test_tasks():
    base = question(config()).name
    for same in (config(threads=2), config(seed=3), config(test_tasks=17), config(adaptation_tasks=3)):
        assert question(same).name == base
    others = [
        question(config(n_way=4)), question(config(meta_steps=7)), question(config(), steps=8),
        question(config(), ["fuse"]), question(config(), sha="y"), question(config(val_tasks=9)),
        question(dataclasses.replace(config(), code="edited")),
    ]  # fmt: skip
    assert len({base, *(other.name for other in others)}) == 8


def test_a_trial_has_the_seed_of_no_result_and_its_own_name():
    asked = question(config(), steps=8)
    first, second = (asked.trial(number, asked.values) for number in (0, 1))
    assert (first.seed, first.meta_steps, first.tuning_trials) == (TUNING_SEED, 8, 0)
    assert first.run_id != second.run_id
    with pytest.raises(BenchError, match="with --tune this is the seed of the trials"):
        question(config(seed=TUNING_SEED))
    with pytest.raises(BenchError, match="inner_steps 0"):
        asked.trial(2, {**asked.values, "inner_steps": 0})


def test_what_a_trial_tries_follows_from_its_number_and_the_trials_before(tmp_path):
    found = []
    for name, interrupted in (("a", False), ("b", True)):
        study = Study(tmp_path / name, name, "acc", 9)
        study.begin({"meta_lr": 0.01})
        study.begin({"meta_lr": 0.02})  # once
        for number in range(12):
            assert study.ask() == number
            value = study.suggest(number, {"meta_lr": LR})["meta_lr"]
            if interrupted:
                study = Study(tmp_path / name, name, "acc", 9)
                assert study.running == [number]
                assert study.suggest(number, {"meta_lr": LR}) == {"meta_lr": value}
            study.tell(number, Trial(number, "complete", {}, 1, 0.0, score=-abs(value - 0.03)))
            study.tell(number, Trial(number, "complete", {}, 1, 0.0, score=9.0))  # told already
        found.append([(trial.values["meta_lr"], trial.score) for trial in study.ended(12)])
    assert found[0] == found[1]
    assert found[0][0][0] == 0.01
    assert len({value for value, _ in found[0]}) == 12


@pytest.mark.parametrize(("kind", "sign"), [("acc", 1), ("error", -1)])
def test_the_best_third_goes_on_at_each_rung_and_the_first_trial_always(tmp_path, kind, sign):
    """Rungs of 9 validations are 1, 3 and 9; a trial that is not the best of so few at one stops there."""
    study = Study(tmp_path, "s", kind, 9)
    study.begin({"meta_lr": 0.01})
    for _ in range(4):
        study.ask()
    assert study.goes_on(1, [0.0, sign * 6.0, sign * 6.0])  # the best so far
    assert study.goes_on(0, [0.0, sign * 5.0])  # the last so far
    assert not study.goes_on(2, [0.0, sign * 1.0])
    assert not study.goes_on(2, [0.0, sign * 1.0])  # asked again after a kill
    assert study.goes_on(0, [0.0, sign * 5.0, 0.0, sign * -9.0, 0.0])
    assert study.goes_on(1, [0.0, sign * 6.0, sign * 6.0, sign * 6.0])
    assert not study.goes_on(3, [0.0, sign * 6.5, 0.0, sign * 5.0])


def test_the_end_of_a_trial_is_no_rung(tmp_path):
    study = Study(tmp_path, "s", "acc", 3)
    for _ in range(2):
        study.ask()
    assert study.goes_on(0, [0.0, 1.0, 1.0, 1.0])
    assert study.goes_on(1, [0.0, 2.0, 0.0, 0.0])


@pytest.mark.parametrize("score", [math.nan, math.inf])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_trial_without_a_finite_score_has_diverged_and_is_never_the_best(score, stopped):
    """Nothing is larger than NaN, so that ``max`` would keep a first trial of that score."""
    row = SimpleNamespace(status="ok", tasks_seen=8, train_s=1.0, eval_s=1.0, error=None, stream_sha256="s")
    last = SimpleNamespace(val_acc=score, val_acc_ci95=score)
    run = SimpleNamespace(row=row, curve=[last], details={PRUNED: stopped})
    study = SimpleNamespace(suggest=lambda *_: {})
    trials = SimpleNamespace(measured=("accuracy", "acc"), question=question(config()), study=study)
    ended = Trials._ended(trials, 0, run)
    assert (ended.state, ended.score, ended.score_ci95) == ("diverged", None, None)
    assert ended.error == "meta-validation gave no finite score"
    assert search_of(trials=(ended, Trial(1, "complete", {}, 8, 1.0, 0.1, 0.1))).best.number == 1


def test_importance_finds_the_hyperparameter_that_matters_and_says_nothing_of_few_trials(tmp_path):
    study, spaces = Study(tmp_path, "s", "acc", 9), {"meta_lr": LR, "idle": LR}
    for number in range(24):
        study.ask()
        value = study.suggest(number, spaces)["meta_lr"]
        study.tell(number, Trial(number, "complete", {}, 1, 0.0, score=value))
    assert study.importance(7) == {}
    shares = study.importance(24)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["meta_lr"] > 0.7


def search_of(algo="ranged", trials=None, **changes):
    values = {"meta_lr": 0.01, "inner_lr": 0.3, "inner_steps": 3, "fuse": "whole"}
    if trials is None:
        trials = (
            Trial(0, "complete", {**values, "meta_lr": 0.004}, 30, 1.5, 0.5, 0.1),
            Trial(1, "complete", values, 30, 2.0, 0.7, 0.1),
            Trial(2, "pruned", {**values, "meta_lr": 0.1}, 10, 0.5, 0.2, 0.1),
        )
    known = {
        "name": f"{algo}-{len(trials)}", "algo": algo, "dataset": "toy", "protocol": "quick", "n_way": 5, "k_shot": 1,
        "k_query": 9, "backbone": "conv4", "measure": "accuracy", "kind": "acc", "meta_steps": 30, "meta_batch": 4,
        "val_tasks": 20, "seed": TUNING_SEED, "device": "cpu", "data_sha256": "x", "importance": {},
        "spaces": {"meta_lr": dataclasses.asdict(LR)},
    }  # fmt: skip
    return Search(**known | changes, trials=tuple(trials))


def test_the_runs_have_the_settings_of_the_best_trial_and_say_what_it_took():
    run = chosen(config(), search_of())
    assert (run.meta_lr, run.hyperparameters["inner_lr"], run.hyperparameters["inner_steps"]) == (0.01, 0.3, 3)
    assert (run.tuning_trials, run.tuning_steps, run.tuning_s) == (3, 70, 4.0)
    assert (run.seed, run.protocol, run.meta_steps) == (0, "quick", 3000)
    assert chosen(config(), search_of(trials=[Trial(0, "failed", {}, 0, 0.0, error="boom")])) is None
    with pytest.raises(BenchError, match="--tune with --protocol quick: its settings of ranged are those"):
        question(run)


def test_a_runs_name_says_that_it_was_tuned_and_not_what_that_took():
    plain = config()
    tuned = with_values(plain, {}, tuning_trials=20, tuning_steps=5, tuning_s=1.0)
    assert tuned.run_id != plain.run_id
    assert tuned.run_id == dataclasses.replace(tuned, tuning_steps=6, tuning_s=2.0).run_id
    assert tuned.run_id != dataclasses.replace(tuned, tuning_trials=21).run_id
    assert plain.run_id == dataclasses.replace(plain, tuning_s=2.0).run_id


@pytest.fixture
def own_protocols(tmp_path, monkeypatch):
    """A folder of protocols that may be added to."""
    folder = tmp_path / "protocols"
    folder.mkdir()
    for path in protocols.FOLDER.glob("*.toml"):
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(protocols, "FOLDER", folder)
    return folder


def searched(out, *searches):
    for search in searches:
        write_search(out / "tuning" / search.name, search)
    return out


def test_a_search_becomes_a_protocol_that_says_what_tuning_its_runs_had(tmp_path, own_protocols):
    out = searched(tmp_path / "out", search_of(), search_of("fomaml"))
    assert preset.main([str(out), "--to", str(own_protocols)]) == 0
    run = config(protocol="tuned")
    assert (run.meta_lr, run.hyperparameters["inner_lr"], run.meta_steps) == (0.01, 0.3, 3000)
    assert (run.tuning_trials, run.tuning_steps, run.tuning_s) == (3, 70, 4.0)
    assert (own_protocols / "tuned.csv").read_text().count("\n") == 7
    assert "equal search of 3 trials of 30 meta-steps" in load_protocol("tuned").summary
    for other in (config("reptile", "tuned"), config(protocol="tuned", n_way=4)):  # which were not searched for
        assert other.tuning_trials == 0
    for other in (config(protocol="tuned", meta_lr=0.5), config(protocol="tuned", sets=["ranged.inner_lr=0.5"])):
        assert (other.tuning_trials, other.tuning_steps, other.tuning_s) == (0, 0, 0.0)
    assert config(protocol="tuned", meta_lr=0.01).tuning_trials == 3
    told = protocols.gaps(load_protocol("tuned"), {"algo": "ranged", "n_way": 4, "k_shot": 1})
    assert "inner_lr" in told
    assert not [name for name in told if name.startswith("tuning_")]


def test_on_data_or_a_network_that_was_not_searched_its_runs_count_as_untuned(tmp_path, own_protocols):
    preset.main([str(searched(tmp_path / "out", search_of())), "--to", str(own_protocols)])
    tuned = load_protocol("tuned")
    there = dataclasses.replace(config(protocol="tuned"), **tuned.searched)
    assert protocols.searched_elsewhere(tuned, there) == (there, [])
    other, (line,) = protocols.searched_elsewhere(tuned, dataclasses.replace(there, dataset="glyphs", backbone="mlp"))
    assert (other.tuning_trials, other.tuning_steps, other.meta_lr) == (0, 0, there.meta_lr)
    assert "not glyphs" in line
    assert "not mlp" in line
    assert "count as untuned" in line
    assert protocols.searched_elsewhere(tuned, other) == (other, [])


def test_a_choice_of_none_is_a_value_that_the_search_found(tmp_path, own_protocols):
    clipped = Trial(0, "complete", {"meta_lr": 0.01, "inner_clip": None}, 30, 1.5, 0.5, 0.1)
    preset.main([str(searched(tmp_path / "out", search_of("maml", (clipped,)))), "--to", str(own_protocols)])
    assert config("maml", "tuned").tuning_trials == 1
    assert config("maml", "tuned", sets=["inner_clip=1"]).tuning_trials == 0
    with pytest.raises(BenchError, match="is that of the trials that found these settings"):
        config("maml", "tuned", seed=TUNING_SEED)


@pytest.mark.parametrize(
    ("searches", "words"),
    [
        ([], "holds no search"),
        ([search_of(), search_of("fomaml", dataset="other")], "searches of dataset other, toy"),
        ([search_of(), search_of("fomaml", trials=[Trial(0, "complete", {}, 1, 1.0, 0.5)])], "unequal searches"),
        ([search_of(), search_of(name="again")], "two searches of one kind"),
        ([search_of(trials=[Trial(0, "failed", {}, 0, 0.0, error="boom")])], "no trial ended well; trial 0: boom"),
        ([search_of(protocol="mine")], "a search in protocol 'mine'"),
    ],
)
def test_what_is_no_equal_search_becomes_no_protocol(searches, words, tmp_path, capsys):
    assert preset.main([str(searched(tmp_path / "out", *searches)), "--to", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("*.toml"))


def test_a_record_reads_back_and_a_damaged_one_is_left_out_with_a_line(tmp_path):
    out, warned = searched(tmp_path, search_of(), search_of("fomaml")), []
    assert load_searches(out, warned.append) == [search_of("fomaml"), search_of()]
    path = out / "tuning" / "ranged-3" / "tuning.json"
    whole = path.read_text()
    for torn in (
        whole[:-40],
        whole.replace('"complete"', '"fine"', 1),
        whole.replace('"meta_steps": 30', '"meta_steps": "x"'),
    ):
        path.write_text(torn)
        assert load_searches(out, warned.append) == [search_of("fomaml")]
        assert str(path) in warned[-1]
    assert len(warned) == 3


def test_no_seed_of_a_trial_can_be_a_default():
    assert TUNING_SEED not in range(RunConfig.seed, 10_000)


def test_a_trial_that_was_recorded_before_its_command_was_killed_is_told_and_not_made_again(tmp_path):
    asked = question(config())
    trials = Trials(asked, Place(tmp_path, tmp_path), ("accuracy", "acc"), 1, fresh=False)
    number = trials.study.ask()
    run = asked.trial(number, trials.study.suggest(number, asked.spaces))
    row = make_row("ranged", run_id=run.run_id, status="ok", tasks_seen=40, train_s=1.0, eval_s=0.5)
    curve = [CurvePoint(10, 40, 1.0, 0.75, 0.1, None)]
    write_run(tmp_path / trials.within / "runs" / run.run_id, row, {}, curve, [], [])
    assert trials.claim() is None
    assert trials.done
    (ended,) = trials.finished().trials
    assert (ended.state, ended.score, ended.meta_steps, ended.seconds) == ("complete", 0.75, 10, 1.5)
