"""What report.html is made of: sentences, figures, commands, examples; no browser."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex

import numpy as np
import pytest
import torch
from made_runs import make_row, make_run

from bench.analysis.comparison import arms, compare
from bench.analysis.curves import validation
from bench.analysis.verdicts import verdict_sentences
from bench.api import Episode
from bench.cli import flags, plan
from bench.network.model import Classifier, build_network
from bench.records.run import EXAMPLES_FILE, Run, load_run, load_runs, write_run
from bench.registry import create_algorithm, create_backbone
from bench.report.drawing import panels
from bench.report.drawing.colours import colours
from bench.report.page.figures import figures, on_dark
from bench.report.page.html import page, study_page
from bench.report.page.traces import DASHES, GREY, SYMBOLS
from bench.report.repeat import repeat_command
from bench.runs.runner import Place
from bench.settings.config import RunConfig
from bench.tasks.stream import TaskStream
from bench.training import examples
from bench.training.evaluate import evaluate
from bench.training.examples import ExampleTasks, example_tasks


def compared(out):
    grouped = arms(load_runs(out))
    return grouped, compare(grouped)


def test_verdicts_name_the_best_mean_and_repeat_what_restricts_them(tmp_path):
    for algo, level in (("low", 0.7), ("high", 0.9), ("high2", 0.9)):
        make_run(tmp_path, algo, level=level)
    grouped, comparisons = compared(tmp_path)
    told = verdict_sentences(grouped, comparisons)["plain"]
    assert told[0].startswith("Highest mean accuracy: high")
    by_pair = {(c.algo_a, c.algo_b): c for c in comparisons if c.mode == "plain"}
    diff = by_pair["high", "low"].diff
    assert f"high is better than low by {diff:.4f} (one seed)." in told
    assert "No difference shown between high and high2." in told


def test_a_verdict_says_what_the_algorithms_did_not_have_in_common(tmp_path):
    make_run(tmp_path, "a", level=0.7, tasks_seen=3200, inner_steps=1)
    make_run(tmp_path, "b", level=0.9, tasks_seen=3200, inner_steps=1)
    assert not [s for s in verdict_sentences(*compared(tmp_path))["plain"] if "differ:" in s]
    make_run(tmp_path, "c", level=0.8, tasks_seen=12_800, inner_steps=5)
    for told in verdict_sentences(*compared(tmp_path)).values():
        assert told[-2:] == [
            "Training budgets differ: 3,200 to 12,800 tasks.",
            "Inner steps in training differ: 1 (a and b), 5 (c).",
        ]


def test_lines_of_one_colour_differ_in_dash_or_mark(tmp_path):
    """Ten algorithms that nobody has registered go more than once around the palette."""
    for i in range(10):
        make_run(tmp_path, f"plugin-{i}", level=0.5 + i / 50)
    grouped, comparisons = compared(tmp_path)
    drawn = figures(grouped, comparisons, [], colours({arm.label: arm.algo for arm in grouped}))
    (lines,) = ([t for t in spec.data if t.get("mode") != "none"] for spec in drawn if spec.kind == "curves-tasks_seen")
    looks = {(t["line"]["color"], t["line"]["dash"], t["marker"]["symbol"]) for t in lines}
    assert len({colour for colour, *_ in looks}) < len(looks) == len(lines) == 10


def test_lines_have_the_dash_and_mark_of_the_pictures(tmp_path):
    """Each by its place among those of its kind, for registered algorithms, their variants and one of a plugin."""
    for algo in ("maml", "fomaml", "reptile", "plugin"):
        make_run(tmp_path, algo)
    make_run(tmp_path, "maml", run_id="maml-more", meta_steps=7)
    grouped, comparisons = compared(tmp_path)
    drawn = figures(grouped, comparisons, [], colours({arm.label: arm.algo for arm in grouped}))
    (lines,) = ([t for t in spec.data if t.get("mode") != "none"] for spec in drawn if spec.kind == "curves-tasks_seen")
    pictured = panels.styles(grouped)
    for line in lines:
        style = pictured[line["meta"]]
        assert DASHES.index(line["line"]["dash"]) == panels._DASHES.index(style.dash)
        assert SYMBOLS.index(line["marker"]["symbol"]) == panels._MARKERS.index(style.marker)
    assert len(lines) == len(pictured) == 5


def test_three_seeds_that_show_less_say_so(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "a", seed, 0.7)
        make_run(tmp_path, "b", seed, 0.7 + (0.2 if seed == 0 else 0.02))
    grouped, comparisons = compared(tmp_path)
    (c,) = (c for c in comparisons if c.mode == "plain")
    assert "with these 3 seeds" in c.verdict
    restriction = c.verdict.removeprefix("b better")
    told = verdict_sentences(grouped, comparisons)["plain"]
    assert told[1] == f"b is better than a by {-c.diff:.4f}{',' * restriction.startswith(' with')}{restriction}."


def test_errors_get_no_verdict_and_the_lowest_is_named(tmp_path):
    for algo, error in (("a", 0.5), ("b", 0.25)):
        row = make_row(algo, dataset="sine", measure="mse", test_error=error, test_error_transductive=error, n_way=1)
        write_run(tmp_path / "runs" / row.run_id, row, {}, [], [], [])
    told = verdict_sentences(*compared(tmp_path))["plain"]
    assert told[0] == "Lowest mean mse: b, 0.2500."
    assert "no verdict" in told[1]


def test_plotly_knows_every_word_of_the_figures(tmp_path):
    import plotly.graph_objects as go

    for i, algo in enumerate(("a", "b", "<c>")):
        for seed in range(2):
            make_run(tmp_path, algo, seed, 0.7 + 0.1 * i, 50, cost=20**i)
    grouped, comparisons = compared(tmp_path)
    specs = figures(grouped, comparisons, [], colours(arm.label for arm in grouped))
    assert len(specs) == 8
    for spec in specs:
        go.Figure(data=spec.data, layout=spec.layout)  # raises on what it does not know
    line = next(trace for trace in specs[0].data if trace.get("name") == "a" and "customdata" in trace)
    arm = next(arm for arm in grouped if arm.label == "a")
    assert (line["x"][-1], line["y"][-1]) == validation(arm, "tasks_seen")[-1][:2]
    seeds = [run.curve[-1].val_acc for run in arm.ok.values()]
    assert validation(arm, "tasks_seen")[-1] == (3200, sum(seeds) / 2, min(seeds), max(seeds))
    assert all("&lt;c&gt;" in t["name"] for spec in specs for t in spec.data if t.get("meta") == "<c>")


def test_rows_have_room_for_their_names(tmp_path):
    drawn = {}
    for algo in ("a", "an algorithm with a rather long name"):
        for steps in (1, 60_000):
            make_run(tmp_path / algo, algo, 0, 0.8, meta_steps=steps, run_id=f"a{steps}")
        grouped, comparisons = compared(tmp_path / algo)
        specs = figures(grouped, comparisons, [], colours(arm.label for arm in grouped))
        (drawn[algo],) = [spec.layout for spec in specs if spec.kind == "step_ms_median"]
    short, long = drawn.values()
    more = [max(name.count("<br>") for name in layout["yaxis"]["ticktext"]) for layout in (short, long)]
    assert more[1] >= more[0] + 2
    assert long["height"] >= short["height"] + 2 * 12 * (more[1] - more[0] - 1)  # two rows, characters of 12 pixels


def test_every_colour_that_is_drawn_has_one_for_dark_pages(tmp_path):
    for i, algo in enumerate(("a", "b", "c")):
        make_run(tmp_path, algo, 0, 0.7 + 0.1 * i, 50, cost=20**i)
    grouped, comparisons = compared(tmp_path)
    labels = {arm.label: arm.algo for arm in grouped}
    found = on_dark(labels)
    drawn = re.findall(
        r"#[0-9a-fA-F]{6}|rgba?\([^)]*\)",
        json.dumps([s.data for s in figures(grouped, comparisons, [], colours(labels))]),
    )
    assert len(set(drawn) & set(found)) >= 6  # lines and bands
    assert set(drawn) - set(found) == {GREY}
    assert [found[colour] for colour in colours(labels).values()] == list(colours(labels, dark=True).values())


@pytest.mark.parametrize("protocol", ["quick", "matched", "paper"])
def test_the_command_of_a_run_makes_that_run(tmp_path, protocol, monkeypatch, toy_images):
    monkeypatch.setattr(plan, "load_data", lambda *_: toy_images)
    given = ["--algos", "reptile,maml", "--dataset", "toy", "--protocol", protocol, "--n-way", "3", "--seeds", "3"]
    given += ["--meta-steps", "7", "--set", "maml.inner_lr=0.25", "--threads", "1", "--device", "cpu"]
    given += ["--data-root", str(tmp_path / "a b")]
    command = shlex.join(["python", "run_bench.py", *given])

    def planned(words):
        place = Place(tmp_path, tmp_path, (), "", False, 1, None)
        return plan.plan(flags.parser().parse_args(words), place)[1]

    for config in planned(given):
        run = Run(make_row(seed=config.seed), {"config": dataclasses.asdict(config), "command": command}, tmp_path)
        words = shlex.split(repeat_command(run))
        assert words[:2] == ["python", "run_bench.py"]
        assert words[-2:] == ["--data-root", str(tmp_path / "a b")]
        assert [one.run_id for one in planned(words[2:])] == [config.run_id]
        again = dataclasses.replace(config, seed=1)
        both = repeat_command(run, Run(make_row(seed=1), {}, tmp_path))
        assert [one.run_id for one in planned(shlex.split(both)[2:])] == [again.run_id, config.run_id]


def test_a_command_that_is_not_known_is_not_made_up(tmp_path):
    assert repeat_command(Run(make_row(), {"config": {"seed": 1}}, tmp_path)) is None
    config = dataclasses.asdict(RunConfig(algo="maml", protocol="study-cost"))
    assert repeat_command(Run(make_row(), {"config": config}, tmp_path)) is None


def test_examples_are_the_first_test_tasks_with_the_answers_that_were_scored(toy_images):
    stream = TaskStream(toy_images.pool("meta_test", "none", torch.device("cpu")), Episode(5, 1, 1), 0)
    algorithm = create_algorithm("reptile")
    network = build_network(create_backbone("one-layer"), toy_images.shape, 5, 0)
    loss = Classifier(network, objective=toy_images.objective)
    slow = loss.weights
    kept = example_tasks(algorithm, loss, slow, {}, stream, 3)
    tasks = stream.batch(0, 3)
    assert np.array_equal(kept.support, (tasks.support.x[:, :, 0] * 255).round().numpy().astype(np.uint8))
    scored = evaluate(algorithm, loss, slow, {}, stream, 3, 3)
    for mode in ("plain", "transductive"):
        right = (getattr(kept, mode) == np.arange(5)).mean(axis=1)
        np.testing.assert_allclose(right, scored.final(mode))
    again = ExampleTasks.from_bytes(kept.to_bytes())
    assert again.to_bytes() == kept.to_bytes()


def make_examples():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (2, 3, 5, 8, 8), dtype=np.uint8)
    answers = np.tile(np.arange(5, dtype=np.uint16), (3, 1))
    return ExampleTasks(*pictures, plain=answers, transductive=(answers + 1) % 5)


@pytest.mark.parametrize("data", [b"", b"PK no", ExampleTasks(*make_examples().__dict__.values()).to_bytes()[:-30]])
def test_damaged_examples_are_no_examples(data):
    with pytest.raises(ValueError, match="no example tasks"):
        ExampleTasks.from_bytes(data)


def test_examples_that_would_fill_the_memory_are_not_unpacked(monkeypatch):
    data = make_examples().to_bytes()
    monkeypatch.setattr(examples, "_LARGEST", 1000)
    with pytest.raises(ValueError, match=r"^no example tasks: .* bytes unpacked$"):
        ExampleTasks.from_bytes(data)


def rendered(out):
    problems = []
    runs = load_runs(out, problems.append)
    grouped = arms(runs)
    return page(runs, grouped, compare(grouped), [], problems, problems.append), problems


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
