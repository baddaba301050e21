"""What report.html is made of: figures and examples; no browser."""

from __future__ import annotations

import json
import re

from made_runs import make_examples, make_run

from bench.analysis.curves import validation
from bench.analysis.results import load, results_of
from bench.records.run import EXAMPLES_FILE, load_run, load_runs, write_run
from bench.report.drawing import styles
from bench.report.drawing.colours import colours
from bench.report.interactive.figures import figures, on_dark
from bench.report.interactive.traces import DASHES, GREY, SYMBOLS
from bench.report.page.report_html import report_html
from bench.report.page.study import study_page


def compared(out):
    return results_of(load_runs(out))


def test_lines_of_many_algorithms_differ_in_colour_and_in_dash_or_mark(tmp_path):
    """Fourteen algorithms that nobody has registered, more than there are dashes or marks."""
    for i in range(14):
        make_run(tmp_path, f"plugin-{i}", level=0.5 + i / 50)
    results = compared(tmp_path)
    drawn = figures(results, colours({arm.label: arm.algo for arm in results.arms}))
    (lines,) = ([t for t in spec.data if t.get("mode") != "none"] for spec in drawn if spec.kind == "curves-tasks_seen")
    looks = {(t["line"]["dash"], t["marker"]["symbol"]) for t in lines}
    assert len({t["line"]["color"] for t in lines}) == len(looks) == len(lines) == 14


def test_lines_have_the_dash_and_mark_of_the_pictures(tmp_path):
    """Each by its place among those of its kind, for registered algorithms, their variants and one of a plugin."""
    for algo in ("maml", "fomaml", "reptile", "plugin"):
        make_run(tmp_path, algo)
    make_run(tmp_path, "maml", run_id="maml-more", meta_steps=7)
    results = compared(tmp_path)
    drawn = figures(results, colours({arm.label: arm.algo for arm in results.arms}))
    (lines,) = ([t for t in spec.data if t.get("mode") != "none"] for spec in drawn if spec.kind == "curves-tasks_seen")
    pictured = styles.styles(results.arms)
    for line in lines:
        style = pictured[line["meta"]]
        assert DASHES.index(line["line"]["dash"]) == styles._DASHES.index(style.dash)
        assert SYMBOLS.index(line["marker"]["symbol"]) == styles._MARKERS.index(style.marker)
    assert len(lines) == len(pictured) == 5


def test_plotly_knows_every_word_of_the_figures(tmp_path):
    import plotly.graph_objects as go

    for i, algo in enumerate(("a", "b", "<c>")):
        for seed in range(2):
            make_run(tmp_path, algo, seed, 0.7 + 0.1 * i, 50, cost=20**i)
    results = compared(tmp_path)
    specs = figures(results, colours(arm.label for arm in results.arms))
    assert len(specs) == 8
    for spec in specs:
        go.Figure(data=spec.data, layout=spec.layout)  # raises on what it does not know
    line = next(trace for trace in specs[0].data if trace.get("name") == "a" and "customdata" in trace)
    arm = next(arm for arm in results.arms if arm.label == "a")
    assert (line["x"][-1], line["y"][-1]) == validation(arm, "tasks_seen")[-1][:2]
    seeds = [run.curve[-1].val_acc for run in arm.ok.values()]
    assert validation(arm, "tasks_seen")[-1] == (3200, sum(seeds) / 2, min(seeds), max(seeds))
    assert all("&lt;c&gt;" in t["name"] for spec in specs for t in spec.data if t.get("meta") == "<c>")


def test_rows_have_room_for_their_names(tmp_path):
    drawn = {}
    for algo in ("a", "an algorithm with a rather long name"):
        for steps in (1, 60_000):
            make_run(tmp_path / algo, algo, 0, 0.8, meta_steps=steps, run_id=f"a{steps}")
        results = compared(tmp_path / algo)
        specs = figures(results, colours(arm.label for arm in results.arms))
        (drawn[algo],) = [spec.layout for spec in specs if spec.kind == "step_ms_median"]
    short, long = drawn.values()
    more = [max(name.count("<br>") for name in layout["yaxis"]["ticktext"]) for layout in (short, long)]
    assert more[1] >= more[0] + 2
    assert long["height"] >= short["height"] + 2 * 12 * (more[1] - more[0] - 1)  # two rows, characters of 12 pixels


def test_every_colour_that_is_drawn_has_one_for_dark_pages(tmp_path):
    for i, algo in enumerate(("a", "b", "c")):
        make_run(tmp_path, algo, 0, 0.7 + 0.1 * i, 50, cost=20**i)
    results = compared(tmp_path)
    labels = {arm.label: arm.algo for arm in results.arms}
    found = on_dark(labels)
    drawn = re.findall(
        r"#[0-9a-fA-F]{6}|rgba?\([^)]*\)",
        json.dumps([s.data for s in figures(results, colours(labels))]),
    )
    assert len(set(drawn) & set(found)) >= 6  # lines and bands
    assert set(drawn) - set(found) == {GREY}
    assert [found[colour] for colour in colours(labels).values()] == list(colours(labels, dark=True).values())


def rendered(out):
    results = load(out)
    return report_html(results)["report.html"].decode(), list(results.problems)


def test_examples_stand_on_the_page_right_and_wrong_apart(tmp_path):
    row = make_run(tmp_path, "a", tasks=20)
    run = load_run(tmp_path / "runs" / row.run_id)
    (run.folder / "run.json").unlink()
    examples = make_examples().to_bytes()
    write_run(run.folder, row, run.details, [], run.test_tasks.itertuples(), [], examples)
    text, problems = rendered(tmp_path)
    assert text.count('<span class="right">plain:') == 15
    assert text.count('<span class="wrong">transductive:') == 15
    assert not problems
    (run.folder / EXAMPLES_FILE).write_bytes(examples + b"x")
    text, problems = rendered(tmp_path)
    assert '<span class="right">' not in text
    assert "not what was written" in problems[0]
    (run.folder / EXAMPLES_FILE).unlink()  # as in a copy without images
    assert rendered(tmp_path)[1] == []


def test_nothing_and_only_failures_make_a_page_too(tmp_path):
    assert "No run has finished yet." in rendered(tmp_path)[0]
    make_run(tmp_path, "a", status="failed", error="</script><b>no</b>\nmore")
    text, _ = rendered(tmp_path)
    assert "there is nothing to compare" in text
    assert "<b>no</b>" not in text
    assert "&lt;/script&gt;&lt;b&gt;no&lt;/b&gt; more" in text


def test_the_page_of_a_study_holds_its_pictures_and_no_others(tmp_path):
    make_run(tmp_path, "<b>", status="failed", error="<i>")
    picture, other = "![steps](plots/steps.png)", "![other](../other.png)"
    table = "| a | b |\n|:--|:--|\n| 1 | 2 |"
    text = "\n\n".join(["# Costs", "Words <script>.", picture, other, "## Growth", f"{table}\n"])
    made = study_page(text, "cost.md", {"plots/steps.png": b"\x89PNG"}, load_runs(tmp_path))
    assert '<img class="picture" alt="steps" src="data:image/png;base64,iVBORw==">' in made
    assert "[other]" in made
    assert not re.findall(r'(?:src|href)="(?!data:|#)', made)
    assert "<script>." not in made
    assert "<b>" not in made
    assert re.search(r'<h2 id="growth-title">Growth</h2>\s*<div[^>]*><table class="sortable"', made)
    assert "<title>Costs</title>" in made
