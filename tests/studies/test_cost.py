"""The study of cost: its runs, rows and slopes of made-up results, figures, and a small study from end to end."""

import csv
import dataclasses
import itertools
import shutil

import pytest
from asked import THREE, asked
from drawn import check_apart
from made_runs import make_row
from places import PLUGINS, REPOSITORY

from bench.api import BenchError
from bench.records.run import Run, load_runs
from bench.settings.config import CODE
from bench.settings.protocols import Override
from bench.studies.cost import Cost
from bench.studies.cost.figure import draw
from bench.studies.cost.points import AXES, MEMORY_STEPS, wanted_points
from bench.studies.cost.tables import cost_rows, slope_rows
from run_bench import main


def made(request, tmp_path, cost):
    """Runs of a request, ``cost`` giving milliseconds and MiB from a configuration, or a status."""
    runs = {}
    for config in Cost().configs(request):
        known = {f.name for f in dataclasses.fields(config)} - {"hyperparameters", *CODE, "algo", "seed"}
        result = cost(config)
        bad = isinstance(result, str)
        measured = {"status": result} if bad else {"step_ms_median": result[0], "peak_mem_mib": result[1]}
        facts = {name: getattr(config, name) for name in known & set(make_row().__dict__)} | measured
        row = make_row(config.algo, config.seed, **facts | {"run_id": config.run_id})
        runs[config.run_id] = Run(row, {}, tmp_path)
    return runs


def by_formula(config):
    """Time and memory that grow by the step in MAML, and time alone in the others."""
    steps = config.hyperparameters["inner_steps"]
    held = config.task_chunk or 5
    return 10.0 + 2 * steps + config.seed, held * (7 + 3 * steps if config.algo == "maml" else 7)


def test_one_setting_is_varied_at_a_time_around_one_base():
    configs = {p.timed.run_id: p.timed for p in wanted_points(asked(algos=("maml",)))}
    assert len(configs) == sum(len(axis.values) for axis in AXES) - (len(AXES) - 1)  # the base is on every axis

    def settings(c):
        return c.n_way, c.k_shot, c.k_query, c.meta_batch, c.hyperparameters["inner_steps"], c.network

    base = (5, 1, 15, 16, 5, "conv4")
    assert base in map(settings, configs.values())
    assert all(sum(a != b for a, b in zip(settings(c), base)) <= 1 for c in configs.values())
    assert {c.hyperparameters["inner_steps"] for c in configs.values()} == {1, 2, 3, 5, 8, 10, 20}
    assert {c.network for c in configs.values()} == {
        *("conv4 (filters=16)", "conv4 (filters=32)", "conv4", "conv4 (filters=128)")
    }


def test_rounds_take_all_algorithms_of_a_point_before_the_next_point():
    order = [(c.seed, c.hyperparameters["inner_steps"], c.algo) for c in
             Cost().configs(asked(grid={"seed": [0, 1]}, vary={"inner_steps": ["2", "1"]}))]  # fmt: skip
    assert list(dict.fromkeys(order)) == [(seed, n, algo) for seed in (0, 1) for n in (1, 2) for algo in THREE]
    assert len(order) == 2 * len(set(order))  # one for time, one for memory


def test_memory_is_taken_from_the_whole_meta_batch_in_few_steps_and_on_a_gpu_from_the_same_run():
    for point in wanted_points(asked()):
        assert point.timed.task_chunk is None
        assert (point.whole.task_chunk, point.whole.meta_steps) == (point.timed.meta_batch, MEMORY_STEPS)
        assert dataclasses.replace(point.whole, task_chunk=None, meta_steps=point.timed.meta_steps) == point.timed
    for point in wanted_points(asked(device="cuda")):
        assert point.timed == point.whole
        assert point.whole.task_chunk == point.whole.meta_batch
    assert {p.timed.task_chunk for p in wanted_points(asked(device="cuda", flags={"task_chunk": 2}))} == {2}


@pytest.mark.parametrize("steps", [20, 2])
def test_the_line_of_a_run_tells_its_form_and_whether_it_was_for_time_or_memory(steps, tmp_path):
    request = asked(
        algos=("maml",), flags={"meta_steps": steps}, vary={"unroll": ["higher", "mixed"], "inner_steps": ["1"]}
    )
    said = []
    for point in wanted_points(request):
        for config in (point.timed, point.whole):
            row = make_row("maml", meta_steps=config.meta_steps, meta_batch=config.meta_batch)
            row = dataclasses.replace(row, step_ms_median=1.0, peak_mem_mib=2.0)
            said.append(Cost().line(Run(row, {"config": dataclasses.asdict(config)}, tmp_path)).rpartition(" (")[2])
    time, memory = "time, in chunks as a run takes them)", "memory of the whole meta-batch)"
    assert said == [time, memory, f"unroll=mixed, {time}", f"unroll=mixed, {memory}"]


def test_minibatches_hold_a_fifth_of_the_task_and_flags_change_the_base_but_not_what_is_varied():
    by_ways = {p.value: p.timed for p in wanted_points(asked(algos=("reptile",), vary={"n_way": ["5", "20"]}))}
    assert {n: c.hyperparameters["inner_batch"] for n, c in by_ways.items()} == {5: 16, 20: 64}
    request = asked(
        algos=("reptile",), flags={"meta_batch": 2}, grid={"k_shot": [5], "k_query": [5]},
        sets=[Override(None, "inner_steps", "4"), Override("reptile", "inner_batch", "9")],
        vary={"inner_steps": ["1", "2"], "meta_batch": ["8"]},
    )  # fmt: skip
    got = [(p.axis.name, p.timed.hyperparameters["inner_steps"], p.timed.meta_batch) for p in wanted_points(request)]
    assert got == [("inner_steps", 1, 2), ("inner_steps", 2, 2), ("meta_batch", 4, 8)]
    timed = [point.timed for point in wanted_points(request)]
    assert {(c.k_shot, c.k_query, c.hyperparameters["inner_batch"]) for c in timed} == {(5, 5, 9)}


def test_rows_and_slopes_follow_from_the_runs(tmp_path):
    request = asked(grid={"seed": [0, 1, 2]}, vary={"inner_steps": ["1", "5", "20"], "meta_batch": ["4", "16"]})
    runs = made(request, tmp_path, by_formula)
    rows = cost_rows(list(wanted_points(request)), runs)
    assert len(rows) == 5 * 3
    (row,) = (r for r in rows if (r.axis, r.value, r.algo) == ("inner_steps", 20, "maml"))
    assert (row.step_ms_median, row.step_ms_low, row.step_ms_high, row.rounds) == (51, 50, 52, 3)
    assert (row.peak_mem_mib, row.peak_mem_whole_mib, row.status) == (5 * 67, 16 * 67, "ok")
    assert len(row.run_ids.split()) == 6
    slopes = {(s.axis, s.measure, s.algo): s for s in slope_rows(rows)}
    maml = slopes["inner_steps", "peak_mem_whole_mib", "maml"]
    assert (maml.per_unit, maml.at_zero, maml.r2, maml.points) == pytest.approx((48, 112, 1, 3))
    assert maml.last_to_first == pytest.approx(67 / 10)
    for algo in ("reptile", "fomaml"):
        flat = slopes["inner_steps", "peak_mem_whole_mib", algo]
        assert (flat.per_unit, flat.last_to_first) == (0, 1)
        assert slopes["inner_steps", "step_ms_median", algo].per_unit == pytest.approx(2)
    assert slopes["meta_batch", "peak_mem_whole_mib", "maml"].per_unit == pytest.approx(22)
    assert slopes["meta_batch", "peak_mem_whole_mib", "maml"].r2 is None


def test_points_that_failed_or_are_missing_are_said_and_left_out(tmp_path):
    request = asked(vary={"inner_steps": ["1", "5", "20"]})
    runs = made(request, tmp_path, lambda c: "oom" if c.hyperparameters["inner_steps"] == 20 else by_formula(c))
    del runs[next(p.timed.run_id for p in wanted_points(request))]
    rows = {(r.value, r.algo): r for r in cost_rows(list(wanted_points(request)), runs)}
    assert (rows[1, "reptile"].status, rows[1, "reptile"].rounds, rows[1, "reptile"].step_ms_median) == (
        "not run",
        0,
        None,
    )
    assert (rows[20, "maml"].status, rows[20, "maml"].peak_mem_whole_mib) == ("oom", None)
    text = Cost().report(request, runs, tmp_path)
    assert "4 of 9 points were not measured" in text
    assert "oom" in (tmp_path / "cost.md").read_text()
    assert "9 of 9 points were not measured" in Cost().report(request, {}, tmp_path / "none")
    assert (tmp_path / "none" / "plots" / "inner_steps.png").exists()


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_figures_show_every_point_and_cut_nothing_off(axis, tmp_path):
    request = asked()
    rows = cost_rows(list(wanted_points(request)), made(request, tmp_path, by_formula))
    drawn = draw(axis, rows, slope_rows(rows), {})
    check_apart(drawn)
    for panel in drawn.axes:
        lines = [list(line.get_xdata()) for line in panel.get_lines()]
        assert lines[:3] == [list(axis.values)] * 3
        ticks = [tick.get_window_extent() for tick in panel.get_xticklabels()]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(ticks))
    assert [("(ms)" in p.get_ylabel(), "(MiB)" in p.get_ylabel()) for p in drawn.axes] == [(True, False), (False, True)]


def test_forms_of_an_algorithm_are_lines_of_their_own(tmp_path):
    """``--vary unroll``: those that have no such choice are measured once."""
    vary = {"inner_steps": ["1", "50"], "unroll": ["higher", "mixed", "recompute"]}
    request = asked(algos=("fomaml", "maml"), vary=vary)
    points = list(wanted_points(request))
    labels = ["fomaml", "maml unroll=higher", "maml unroll=mixed", "maml unroll=recompute"]
    assert [(p.value, p.label) for p in points] == [(steps, label) for steps in (1, 50) for label in labels]
    chosen = [p.timed.hyperparameters.get("unroll") for p in points]
    assert chosen == [None, "higher", "mixed", "recompute"] * 2
    rows = cost_rows(points, made(request, tmp_path, by_formula))
    assert [row.algo for row in rows] == labels * 2
    assert {slope.algo for slope in slope_rows(rows)} == set(labels)
    drawn = draw(AXES[0], rows, slope_rows(rows), {})
    check_apart(drawn)
    assert all(len(panel.get_lines()) >= 4 for panel in drawn.axes)
    assert "maml unroll=mixed" in Cost().report(request, {}, tmp_path) + (tmp_path / "cost.md").read_text()


REFUSED = [
    ({"vary": {"unroll": ["mixt"]}}, "--vary unroll 'mixt'; accepted: higher, mixed, recompute"),
    ({"vary": {"unroll": ["mixed"]}, "algos": ("fomaml",)}, "unknown setting in --vary of study cost 'unroll'"),
    ({"vary": {"inner_step": ["1"]}}, "Did you mean 'inner_steps'?"),
    ({"vary": {"inner_steps": ["few"]}}, "--vary inner_steps 'few'; accepted: a whole number"),
    ({"vary": {"inner_steps": ["0"]}}, "inner_steps 0; accepted: 1 or more"),
    ({"vary": {"filters": ["0"]}}, "backbone 'conv4': filters 0; accepted: 1 or more"),
    ({"grid": {"n_way": [5, 10]}}, "n_way 5,10; accepted in study cost: one value"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_request_that_the_study_cannot_use_is_refused_in_one_line(changes, words):
    with pytest.raises(BenchError) as caught:
        Cost().configs(asked(**changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_algorithm_without_inner_steps_is_left_out_or_refused(tmp_path, capsys):
    flags = ["--study", "cost", "--plugin", str(PLUGINS / "three_kinds.py"), "--out", str(tmp_path)]
    assert main([*flags, "--algos", "toy-protonet"]) == 2
    assert "algorithm 'toy-protonet' has no inner_steps to vary" in capsys.readouterr().err
    assert {c.algo for c in Cost().configs(asked(algos=None))} >= set(THREE)
    assert "toy-protonet" not in {c.algo for c in Cost().configs(asked(algos=None))}


def test_a_small_study_from_end_to_end(tmp_path, capsys):
    flags = [
        *("--study", "cost", "--algos", "fomaml", "--vary", "inner_steps=1,2", "--meta-batch", "4"),
        *("--meta-steps", "4", "--device", "cpu", "--set", "filters=16"),
        *("--plugin", str(PLUGINS / "toy_data.py"), "--dataset", "toy"),
        *("--out", str(tmp_path)),
    ]
    assert main(flags) == 0
    out = tmp_path / "study-cost"
    with (out / "cost.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["axis"], r["value"], r["algo"], r["inner_steps"], r["status"]) for r in rows] == [
        ("inner_steps", value, "fomaml", value, "ok") for value in "12"
    ]
    for row in rows:
        assert all(float(row[c]) > 0 for c in ("step_ms_median", "peak_mem_mib", "peak_mem_whole_mib"))
        assert all((out / "runs" / run_id / "run.json").exists() for run_id in row["run_ids"].split())
    assert len(list((out / "runs").iterdir())) == 4
    assert [p.name for p in (out / "plots").glob("*.png")] == ["inner_steps.png"]
    assert not (tmp_path / "summary.csv").exists()
    assert "peak memory" in capsys.readouterr().out

    before = (out / "cost.csv").read_bytes()
    assert main(flags) == 0
    assert capsys.readouterr().out.count("(kept; --fresh runs it again)") == 4
    (out / "cost.csv").unlink()
    assert main([*flags, "--report"]) == 0
    assert (out / "cost.csv").read_bytes() == before


@pytest.mark.uncounted
def test_the_committed_study_is_rebuilt_from_its_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.studies.cost.write_pictures", lambda *_: [])
    committed = REPOSITORY / "results" / "reference" / "study-cost"
    shutil.copytree(committed / "runs", tmp_path / "runs")
    flags = {"meta_steps": 10, "kernels": "eager"}
    algos = ("fomaml", "maml", "reptile")
    request = asked(algos=algos, dataset="omniglot", threads=1, grid={"seed": [0, 1, 2]}, flags=flags)
    Cost().report(request, {run.row.run_id: run for run in load_runs(tmp_path)}, tmp_path)
    for name in ("cost.csv", "slopes.csv", "cost.json"):
        assert (tmp_path / name).read_text() == (committed / name).read_text()
