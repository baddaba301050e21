"""Figures: what is drawn where, on accuracies known beforehand; and nothing that a run may lack breaks one."""

from __future__ import annotations

import io
import math
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from drawn import check_legible, texts_of
from made_runs import make_run, rewrite
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from bench.analysis.arms import arms
from bench.records.columns import CurvePoint
from bench.records.run import load_runs
from bench.report.drawing.axes import fraction_axis
from bench.report.drawing.panels import COLUMN, SLIDE
from bench.report.drawing.pictures import FIGURES, png, write_pictures
from bench.report.drawing.styles import styles, styles_of
from bench.report.outputs import outputs

outputs()  # which loads the pictures


def arms_of(out):
    return arms(load_runs(out))


def curves_of(axes):
    return [line for line in axes.get_lines() if len(line.get_xdata()) > 1]


def texts_in_legends(figure):
    return [text for legend in figure.legends for text in legend.get_texts()]


UNKNOWN = ("test_acc", "test_acc_ci95", "train_s", "step_ms_median", "step_ms_p95", "peak_mem_mib")


@pytest.fixture
def grid(tmp_path):
    """Three algorithms, three seeds, two settings."""
    for n_way, k_shot in ((5, 1), (20, 5)):
        for i, algo in enumerate(("gamma", "alpha", "beta")):
            for seed in range(3):
                name = f"{algo}-{n_way}-{seed}"
                make_run(tmp_path, algo, seed, 0.8 + 0.03 * i, 60, 1 + i, n_way=n_way, k_shot=k_shot, run_id=name)
    return tmp_path


@pytest.mark.parametrize("name", FIGURES)
def test_one_panel_per_setting_with_units_and_the_data_set_in_the_title(grid, name):
    figure = FIGURES[name](arms_of(grid))
    by_two = name in ("adaptation", "ranking")  # whose panels stand by two under one title and share their y axis
    assert len(figure.axes) == (4 if by_two else 2)
    assert "glyphs, protocol quick" in " ".join(figure.get_suptitle().split())
    titled = figure.axes[::2] if by_two else figure.axes
    titles = [axes.get_title() or axes.get_title(loc="left") for axes in titled]
    assert [title.split("\n")[0] for title in titles] == ["5-way 1-shot", "20-way 5-shot"]
    units = {"step_time": "(ms)", "peak_memory": "(MiB)", "accuracy_vs_tasks": "tasks", "adaptation": "steps"}
    if name == "ranking":
        assert ["(fraction" in axes.get_xlabel() for axes in figure.axes] == [True, False] * 2
        assert all("ms a meta-step" in axes.get_xlabel() for axes in figure.axes[1::2])
        return
    assert all(units.get(name, "(s)") in axes.get_xlabel() for axes in figure.axes)
    if "accuracy" in name or name == "adaptation":
        assert all("(fraction" in axes.get_ylabel() for axes in titled)


def arms_named(out, names, seeds=2, **changes):
    for i, algo in enumerate(names):
        for seed in range(seeds):
            name = f"{i}-{seed}"
            make_run(out, algo, seed, 0.8 + 0.02 * i, 20, 1 + 0.3 * i, run_id=name, beside=i % 3, **changes)
    return arms_of(out)


LONG = "an_algorithm_with_a_name_that_goes_on_and_on_for_ever"
NAMES = {
    "one": ["alpha"],
    "three": ["alpha", "beta", "gamma"],
    "eight": [f"method{i}" for i in range(8)],
    "long": ["alpha", LONG, f"{LONG}_once_more"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return {case: arms_named(tmp_path_factory.mktemp(case), names) for case, names in NAMES.items()}


@pytest.mark.uncounted
@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("case", NAMES)
def test_texts_are_whole_apart_and_large_enough_in_a_column_and_on_a_slide(made, name, case):
    for page in (COLUMN, SLIDE) if case == "three" else (COLUMN,):
        check_legible(FIGURES[name](made[case], page))


@pytest.mark.uncounted
@pytest.mark.parametrize("name", FIGURES)
def test_two_settings_and_missing_values_are_as_legible(grid, name):
    make_run(grid, "lost", 0, 0.7, 20, **dict.fromkeys(UNKNOWN))
    for page in (COLUMN, SLIDE):
        check_legible(FIGURES[name](arms_of(grid), page))


def test_times_measured_beside_other_runs_are_marked(made):
    for name in ("accuracy_vs_wallclock", "step_time", "accuracy_vs_cost", "time_to_accuracy"):
        words = [text.get_text() for text, _ in texts_of(FIGURES[name](made["three"]))]
        assert "times measured beside up to 2 other runs" in words
        assert {"alpha", "beta *", "gamma *"} <= set(words)
    for name in ("accuracy_vs_tasks", "peak_memory", "adaptation"):
        assert not any("*" in text.get_text() for text, _ in texts_of(FIGURES[name](made["three"])))


def test_an_accuracy_axis_that_does_not_begin_at_zero_says_where_it_begins(tmp_path):
    make_run(tmp_path, "low", tasks=3, test_acc=0.1, test_acc_ci95=0.01)
    make_run(tmp_path, "high", tasks=3, test_acc=0.9, test_acc_ci95=0.01)
    axes = FIGURES["accuracy_vs_cost"](arms_of(tmp_path)).axes[0]
    assert (axes.get_ylim()[0], axes.get_ylabel()) == (0, "test accuracy (fraction)")
    (tmp_path / "near").mkdir()
    for algo, accuracy in (("low", 0.86), ("high", 0.9)):
        make_run(tmp_path / "near", algo, tasks=3, test_acc=accuracy, test_acc_ci95=0.01)
    axes = FIGURES["accuracy_vs_cost"](arms_of(tmp_path / "near")).axes[0]
    start = axes.get_ylim()[0]
    assert 0.8 < start < 0.85
    assert axes.get_ylabel() == f"test accuracy\n(fraction; from {start:g})"


def test_vector_files_are_well_formed_and_the_same_every_time(made, tmp_path):
    for folder in ("a", "b"):
        write_pictures(tmp_path / folder, "cost", lambda page: FIGURES["accuracy_vs_cost"](made["three"], page))
    for path in ("cost.png", "cost.svg", "slides/cost.png"):
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    root = ElementTree.parse(tmp_path / "a" / "cost.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.get("width").removesuffix("pt")) == pytest.approx(3.4 * 72)
    assert "<dc:date>" not in (tmp_path / "a" / "cost.svg").read_text(encoding="utf-8")


def test_panels_keep_their_height_under_a_long_legend(tmp_path):
    heights = []
    for count in (1, 8):
        for i in range(count):
            make_run(tmp_path, f"algorithm_{i}_with_quite_a_long_name_indeed", tasks=3)
        figure = FIGURES["accuracy_vs_cost"](arms_of(tmp_path))
        FigureCanvasAgg(figure).draw()
        heights.append(figure.axes[0].get_position().height * figure.get_figheight())
    assert heights[1] == pytest.approx(heights[0], rel=0.15)


def test_seeds_are_a_mean_line_with_a_band_from_lowest_to_highest(tmp_path):
    for seed, accuracy in ((0, 0.5), (1, 0.7), (2, 0.9)):
        row = make_run(tmp_path, seed=seed, tasks=3)
        points = [CurvePoint(0, 0, 0.0, 0.2, 0.01, 1.0), CurvePoint(10, 80, 1.0 + seed, accuracy, 0.01, 1.0)]
        if seed == 2:  # a point that the others lack cannot be averaged
            points.append(CurvePoint(20, 160, 9.0, 0.99, 0.01, 1.0))
        rewrite(tmp_path, row, curve=points)
    for name, x in (("accuracy_vs_tasks", [0, 80]), ("accuracy_vs_wallclock", [0, 2])):
        figure = FIGURES[name](arms_of(tmp_path))
        (line,) = curves_of(figure.axes[0])
        np.testing.assert_allclose(line.get_xydata(), list(zip(x, [0.2, 0.7])))
        (band,) = figure.axes[0].collections
        assert band.get_paths()[0].get_extents().extents[1::2] == pytest.approx([0.2, 0.9])
        assert "band: lowest to highest seed" in [text.get_text() for text in texts_in_legends(figure)]


def test_a_single_seed_shows_its_interval_over_tasks(tmp_path):
    row = make_run(tmp_path, tasks=3)
    points = [CurvePoint(0, 0, 0.0, 0.2, 0.05, 1.0), CurvePoint(10, 80, 1.0, 0.6, 0.1, 1.0)]
    rewrite(tmp_path, row, curve=points)
    figure = FIGURES["accuracy_vs_tasks"](arms_of(tmp_path))
    assert figure.axes[0].collections[0].get_paths()[0].get_extents().extents[1::2] == pytest.approx([0.15, 0.7])
    assert any("95% interval over tasks" in text.get_text() for text in texts_in_legends(figure))


def test_bars_show_the_numbers_of_the_table(grid):
    for name, unit in (("step_time", 140.0), ("peak_memory", 210.0)):
        axes = FIGURES[name](arms_of(grid)).axes[0]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["alpha", "beta", "gamma"]
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([2 * unit, 3 * unit, unit])
        assert axes.get_xlim()[0] == 0


PAPER = "conv4 (padding=same, norm=shift, norm_eps=0.001, head=mean, head_std=1.0)"


@pytest.fixture
def long_settings(tmp_path):
    """Three arms on a network with five options beside one on a network with two of these."""
    for algo in ("alpha", "beta", "gamma"):
        make_run(tmp_path, algo, tasks=3, backbone=PAPER, k_query=1, test_rotation="per_class")
    make_run(tmp_path, "delta", tasks=3, backbone="conv4 (padding=same, norm_eps=0.001)", k_query=9)
    return arms_of(tmp_path)


@pytest.mark.uncounted
@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("page", [COLUMN, SLIDE])
def test_panels_are_named_once_by_what_tells_their_settings_apart(long_settings, name, page):
    figure = FIGURES[name](long_settings, page)
    check_legible(figure)
    titles = [" ".join((axes.get_title() or axes.get_title(loc="left")).split()) for axes in figure.axes]
    own = "5-way 1-shot (k_query=1, norm=shift, head=mean, head_std=1.0, test_rotation=per_class)"
    first, other = [re.split(" (?:No )?Pareto| reached by", title)[0] for title in titles if title]
    assert (first, other) == (own, "5-way 1-shot (k_query=9, test_rotation=none)")
    assert all(title.count("\n") <= 5 for title in titles)


@pytest.mark.uncounted
@pytest.mark.parametrize("name", ["accuracy_vs_tasks", "accuracy_vs_wallclock", "accuracy_vs_cost", "time_to_accuracy"])
@pytest.mark.parametrize("cost", [4.0, 60.0, 4000.0])
def test_long_numbers_below_an_axis_stand_apart(tmp_path, name, cost):
    """Half a million to two million tasks, and times of one to 4,000 times as long, in two panels of a slide."""
    for n_way in (5, 20):
        for algo, times in (("alpha", 1.0), ("beta", cost)):
            train_s = 1982.0 * times
            row = make_run(tmp_path, algo, tasks=3, n_way=n_way, run_id=f"{algo}-{n_way}", train_s=train_s)
            points = [CurvePoint(i, 384_000 * i, 396.4 * times * i, 0.5 + 0.1 * i, 0.01, 1.0) for i in range(6)]
            rewrite(tmp_path, row, curve=points)
    for page in (COLUMN, SLIDE):
        check_legible(FIGURES[name](arms_of(tmp_path), page))


def test_an_axis_along_the_bottom_says_in_a_line_of_its_own_where_it_begins():
    axes = Figure().subplots()
    fraction_axis(axes, [0.8, 0.9], "test accuracy", "x")
    assert axes.get_xlabel() == "test accuracy\n(fraction; from 0.75)"


def test_bars_are_as_thick_in_every_panel(long_settings):
    for page in (COLUMN, SLIDE):
        figure = FIGURES["step_time"](long_settings, page)
        FigureCanvasAgg(figure).draw()
        thick = [bar.get_window_extent().height for axes in figure.axes for bar in axes.patches]
        assert len(thick) == 4
        assert max(thick) == pytest.approx(min(thick), rel=0.02)


def test_the_pareto_front_is_drawn_and_named(tmp_path):
    for algo, train_s, accuracy in (
        ("slow", 90.0, 0.9),
        ("quick", 10.0, 0.7),
        ("beaten", 50.0, 0.6),
        ("mid", 40.0, 0.8),
    ):
        make_run(tmp_path, algo, tasks=3, train_s=train_s, test_acc=accuracy)
    axes = FIGURES["accuracy_vs_cost"](arms_of(tmp_path)).axes[0]
    assert "Pareto front: quick, mid, slow" in axes.get_title()
    (front,) = (line for line in axes.get_lines() if line.get_drawstyle() == "steps-post")
    np.testing.assert_array_equal(front.get_xydata(), [[10, 0.7], [40, 0.8], [90, 0.9], [90, 0.9]])


def test_without_times_that_differ_a_sentence_stands_in_place_of_the_front(tmp_path):
    for algo, train_s, accuracy in (("slow", 11.0, 0.9), ("quick", 10.0, 0.7)):
        make_run(tmp_path, algo, tasks=3, train_s=train_s, test_acc=accuracy)
    figure = FIGURES["accuracy_vs_cost"](arms_of(tmp_path))
    assert "training times do not differ by more than their noise" in " ".join(figure.axes[0].get_title().split())
    assert not [line for line in figure.axes[0].get_lines() if line.get_drawstyle() == "steps-post"]
    (texts,) = ([text.get_text() for text in one.get_texts()] for one in figure.legends[:1])
    assert "Pareto front" not in texts


def test_adaptation_has_plain_beside_transductive(tmp_path):
    make_run(tmp_path, tasks=3, eval_inner_steps=3)
    make_run(tmp_path, "still", tasks=3, eval_inner_steps=None)
    plain, transductive = FIGURES["adaptation"](arms_of(tmp_path)).axes
    (run, _) = load_runs(tmp_path)
    for axes, mode in ((plain, "plain"), (transductive, "transductive")):
        assert axes.get_xlabel().endswith(mode)
        found = [point for point in run.adaptation if point.mode == mode and point.step > 0]
        np.testing.assert_allclose(axes.get_lines()[0].get_xydata(), [(point.step, point.acc) for point in found])
        (band,) = axes.collections[:1]
        assert band.get_paths()[0].get_extents().y1 == pytest.approx(max(p.acc + p.acc_ci95 for p in found))
        assert axes.get_lines()[1].get_xydata()[:, 0].tolist() == [1, 3]  # no steps: a level across the panel


@pytest.mark.uncounted
def test_what_is_taller_than_its_page_is_shared_out_and_looks_the_same(tmp_path):
    """Eight settings: on parts of equal size, each setting once, and a label keeps its look where its kin are not."""
    for i, n_way in enumerate(range(5, 13)):
        for meta_steps in (10, 20)[: 1 + (i < 4)]:
            make_run(tmp_path, "one", tasks=3, n_way=n_way, meta_steps=meta_steps, run_id=f"{n_way}-{meta_steps}")
    members, drawn = arms_of(tmp_path), []

    def draw(page):
        drawn.append((page, FIGURES["accuracy_vs_tasks"](members, page)))
        return drawn[-1][1]

    write_pictures(tmp_path, "acc", draw, settings=8)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["acc-2.png", "acc-3.png", "acc.png"]
    kept = [figure for page, figure in drawn if page.columns == 1][-3:]
    assert all(figure.get_figheight() <= COLUMN.tallest for figure in kept)
    titles = [axes.get_title() for figure in kept for axes in figure.axes]
    assert titles == [f"{n_way}-way 1-shot" for n_way in range(5, 13)]
    assert [figure.get_suptitle().split()[-3:] for figure in kept] == [[f"({i}", "of", "3)"] for i in (1, 2, 3)]
    assert drawn[-1][1].get_figheight() <= SLIDE.tallest
    for name in ("acc-2.csv", "acc-2024.png", "acc-x.png"):  # somebody else's
        (tmp_path / name).write_text("kept")
    fewer = [arm for arm in members if arm.setting.n_way < 7]
    write_pictures(tmp_path, "acc", lambda page: FIGURES["step_time"](fewer, page), 2)
    left = ["acc-2.csv", "acc-2024.png", "acc-x.png", "acc.png", "acc.png", "acc.svg"]
    assert sorted(path.name for path in tmp_path.glob("**/acc*")) == left


def test_an_algorithm_looks_the_same_in_every_figure_and_no_two_look_alike(grid):
    members = arms_of(grid)
    look = styles(members)
    for name in ("accuracy_vs_tasks", "accuracy_vs_wallclock", "adaptation"):
        for axes in FIGURES[name](members).axes:
            drawn = [line.get_color() for line in curves_of(axes)]
            assert drawn == [look[label].colour for label in ("alpha", "beta", "gamma")]
    many = styles([type("A", (), {"label": f"a{i}", "algo": f"a{i}"})() for i in range(24)])
    assert len({str(style) for style in many.values()}) == 24
    built_in = styles_of(["reptile", "fomaml", "maml", "foml", "joint"]).values()
    for part in ("colour", "dash", "marker"):
        assert len({str(getattr(style, part)) for style in built_in}) == 5


def test_the_time_axis_is_logarithmic_only_where_a_linear_one_would_hide_somebody(tmp_path):
    make_run(tmp_path, "one", tasks=3, cost=1.0)
    make_run(tmp_path, "two", tasks=3, cost=5.0)
    assert FIGURES["accuracy_vs_wallclock"](arms_of(tmp_path)).axes[0].get_xscale() == "linear"
    make_run(tmp_path, "three", tasks=3, cost=50.0)
    assert FIGURES["accuracy_vs_wallclock"](arms_of(tmp_path)).axes[0].get_xscale() == "log"
    make_run(tmp_path, "four", tasks=3, train_s=0.0)
    assert FIGURES["accuracy_vs_cost"](arms_of(tmp_path)).axes[0].get_xscale() == "linear"


@pytest.mark.uncounted
@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("value", [None, math.nan, 0.0])
def test_unknown_and_zero_values_are_drawn_as_such(tmp_path, name, value):
    row = make_run(tmp_path, tasks=3, **dict.fromkeys(UNKNOWN, value))
    points = [CurvePoint(0, 0, 0.0, value, value, value)]
    rewrite(tmp_path, row, curve=points)
    figure = FIGURES[name](arms_of(tmp_path))
    assert imread(io.BytesIO(png(figure))).shape[2] == 4
    if name in ("step_time", "peak_memory"):
        expected = "0.00" if value == 0 else "not measured"
        assert expected in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_finished_and_strange_names_still_make_pictures(tmp_path, name):
    assert "no finished run" in [text.get_text() for text in FIGURES[name]([]).texts]
    for algo in ("$x$ and $y$", "_hidden", "名前", "100%", "a\\b^{"):
        make_run(tmp_path, algo, tasks=3, run_id=f"r{algo.encode().hex()}")
    make_run(tmp_path, "broken", tasks=3, status="failed")
    figure = FIGURES[name](arms_of(tmp_path))
    png(figure)
    shown = [t.get_text().replace(r"\$", "$") for axes in figure.axes for t in axes.get_yticklabels()]
    shown += [t.get_text().replace(r"\$", "$") for t in texts_in_legends(figure)]
    shown += [t.get_text().replace(r"\$", "$") for axes in figure.axes for t in axes.texts]
    assert {"$x$ and $y$", "_hidden", "名前"} <= set(shown)
    assert "broken" not in shown


def test_drawing_leaves_no_state_behind_and_repeats_to_the_byte(grid):
    before = dict(matplotlib.rcParams)
    members = arms_of(grid)
    first = png(FIGURES["accuracy_vs_cost"](members))
    assert png(FIGURES["accuracy_vs_cost"](members)) == first
    assert dict(matplotlib.rcParams) == before
    assert isinstance(FIGURES["step_time"](members), Figure)
