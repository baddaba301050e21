"""The study of scale: its points, budgets that follow from a timing, and a small study from end to end."""

import dataclasses

import pytest
from arm_runs import TOY, made, read
from asked import asked
from drawn import check_apart

from bench.api import BenchError
from bench.records.run import load_runs
from bench.studies.scale import Scale
from bench.studies.scale.cells import AXES, sized, wanted_points
from bench.studies.scale.figure import draw
from bench.studies.scale.tables import ScaleRow
from run_bench import main


def on_toy(**changes):
    return asked(**{"algos": ("fomaml", "reptile"), "dataset": "glyphs", "classes": {"glyphs": 300}} | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vary": {"widht": ["1"]}}, "unknown setting in --vary of study scale 'widht'"),
        ({"vary": {"seconds": ["1", "2"]}}, "--vary seconds=1,2; accepted in study scale: one value"),
        ({"vary": {"seconds": ["0"]}}, "--vary seconds=0; accepted: a number above 0"),
        ({"vary": {"seconds": ["x"]}}, "--vary seconds 'x'; accepted: a number"),
        ({"vary": {"backbone": ["con4"]}}, "unknown network in --vary of study scale 'con4'. Did you mean 'conv4'?"),
        ({"vary": {"filters": ["a"]}}, "--vary filters 'a'; accepted: a whole number"),
        ({"flags": {"meta_steps": 5}}, "--meta-steps: study scale decides it by seconds; --vary seconds=N"),
        ({"grid": {"n_way": [5, 20]}}, "n_way 5,20; accepted in study scale: one value"),
    ],
)
def test_what_the_study_cannot_use_is_said_in_one_line(changes, words):
    with pytest.raises(BenchError) as caught:
        wanted_points(on_toy(**changes))
    assert words in str(caught.value)


def test_points_are_the_values_that_the_data_has_and_all_of_it_is_one_run_for_every_axis():
    points = wanted_points(on_toy(algos=("fomaml",)))
    found = [(p.axis.name, p.cell.value) for p in points]
    assert found == [
        *(("train_classes", n) for n in (50, 100, 200, 300)),
        *(("filters", n) for n in (16, 32, 64, 128)),
        *(("backbone", name) for name in ("conv4", "resnet12", "vit")),
    ]
    ids = {at: p.cell.configs[0].run_id for at, p in zip(found, points)}
    base = {ids["train_classes", 300], ids["filters", 64], ids["backbone", "conv4"]}
    assert len(base) == 1
    assert len(set(ids.values())) == 9 == len(Scale().configs(on_toy(algos=("fomaml",))))
    assert points[0].cell.configs[0].train_classes == 50


def test_a_network_without_filters_has_no_axis_of_width():
    axes = {p.axis.name for p in wanted_points(on_toy(flags={"backbone": "vit"}))}
    assert axes == {"train_classes", "backbone"}


def test_a_budget_is_the_steps_that_fit_into_the_seconds(tmp_path):
    """A step of 140 ms, as the made-up run has: 7 s are 50 of them, for every seed alike."""
    request = on_toy(vary={"train_classes": ["50"], "seconds": ["7"]}, grid={"seed": [3, 4]})
    fomaml, reptile = points = wanted_points(request)
    runs = made([fomaml.cell.configs[0]], tmp_path)
    cell = sized(request, fomaml, runs)
    assert [(c.seed, c.meta_steps, c.train_classes, c.test_tasks) for c in cell.configs] == [
        (3, 50, 50, 500),
        (4, 50, 50, 500),
    ]
    assert sized(request, reptile, runs) is None, "nobody timed it"
    assert [c.run_id for c in Scale().further(request, runs)] == [c.run_id for c in cell.configs]
    text = Scale().report(request, runs, tmp_path)
    assert "2 of 2 results are missing" in text
    assert [row["status"] for row in read(tmp_path / "scale.csv")] == ["not run", "not run"]
    runs |= made(cell.configs, tmp_path, lambda config: 0.7)
    Scale().report(request, runs, tmp_path)
    row = read(tmp_path / "scale.csv")[0]
    assert (row["meta_steps"], row["seeds"], row["train_classes"], row["status"]) == ("50", "2", "50", "ok")
    assert float(row["timed_step_ms"]) == 140
    runs |= made([points[1].cell.configs[0]], tmp_path)
    runs |= made(sized(request, points[1], runs).configs, tmp_path, lambda config: 0.9)
    Scale().report(request, runs, tmp_path)
    assert "fomaml - reptile" in (tmp_path / "scale.md").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("scale")
    vary = ["--vary", "train_classes=5,30", "--vary", "seconds=0.05"]
    flags = ["--study", "scale", *TOY, *vary, "--algos", "fomaml", "--k-query", "3", "--out", str(out)]
    return main(flags), flags, out / "study-scale"


def test_a_small_study_from_end_to_end(finished):
    code, _, out = finished
    assert code == 0
    rows = read(out / "scale.csv")
    assert [(row["value"], row["algo"], row["status"]) for row in rows] == [
        ("5", "fomaml", "ok"),
        ("30", "fomaml", "ok"),
    ]
    runs = {run.row.run_id: run for run in load_runs(out)}
    assert len(runs) == 4, "one that times and one that trains for each"
    for row in rows:
        steps = max(1, round(50 / float(row["timed_step_ms"])))
        assert int(row["meta_steps"]) == runs[row["run_ids"]].row.meta_steps == steps
        assert len(runs[row["run_ids"]].test_tasks) == 20
    assert {runs[row["run_ids"]].details["config"]["train_classes"] for row in rows} == {5, None}


def test_the_command_again_keeps_every_run_and_a_report_is_the_same(finished, capsys):
    _, flags, out = finished
    before = (out / "scale.csv").read_bytes()
    assert main(flags) == 0
    assert capsys.readouterr().out.count("kept") == 4
    assert main([*flags, "--report"]) == 0
    assert (out / "scale.csv").read_bytes() == before


def test_figures_show_every_point_and_cut_nothing_off():
    base = {"dataset": "glyphs", "backbone": "conv4", "train_classes": None, "seconds": 120.0, "meta_batch": 4}
    rows = [
        ScaleRow(axis=axis.name, value=str(value), algo=algo, status="ok", run_ids="", **base)
        for axis in AXES
        for value in axis.values
        for algo in ("fomaml", "maml", "reptile")
    ]
    full = [
        dataclasses.replace(row, test_acc=0.6 + 0.001 * i, test_acc_ci95=0.02, step_ms_median=10.0 * (i + 1))
        for i, row in enumerate(rows)
    ]
    for axis in AXES:
        figure = draw(axis, full)
        check_apart(figure)
        for panel in figure.axes:
            drawn = [len(line.get_xdata()) for line in panel.get_lines() if line.get_marker() in ("o", "s", "^")]
            assert drawn == [len(axis.values)] * 3
    assert "not recorded" in [text.get_text() for text in draw(AXES[0], rows).axes[0].texts]
