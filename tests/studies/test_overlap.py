"""Minibatch overlap: its runs, the figure, and a small study from end to end."""

from arm_runs import TOY, made, read, wanted
from drawn import check_apart

from bench.studies.arms.tables import cell_rows
from bench.studies.overlap import Overlap
from bench.studies.overlap.cells import ARMS, AXES, by_point
from bench.studies.overlap.figure import draw, once
from run_bench import main


def test_overlap_varies_one_setting_at_a_time_on_the_same_tasks_for_all_arms():
    cells = Overlap.cells(wanted())
    configs = Overlap().configs(wanted())
    assert len(cells) == len(ARMS) * sum(len(axis.values) for axis in AXES)
    assert len(configs) == len(ARMS) * (sum(len(axis.values) for axis in AXES) - (len(AXES) - 1))  # one base for all
    for members in by_point(cells).values():
        assert len({c.episodes["meta_train"] for cell in members for c in cell.configs}) == 1

    def settings(c):
        return c.hyperparameters["inner_steps"], c.hyperparameters["inner_batch"], c.meta_lr

    assert all(sum(a != b for a, b in zip(settings(c), (4, 25, 0.25))) <= 1 for c in configs)
    for cell in cells:
        assert settings(cell.configs[0])[[a.name for a in AXES].index(cell.axis)] == cell.value
    images = {c.n_way * (c.train_shots + c.k_query) for c in configs}
    assert images == {100}
    tails = {
        cell.value: cell.configs[0].n_way * cell.configs[0].k_query for cell in cells if cell.axis == "inner_batch"
    }
    assert tails == {10: 10, 25: 25, 50: 50, 100: 50}, "as large as a minibatch, and half of the images at most"
    assert [once(next(c for c in cells if c.axis == axis.name)) for axis in AXES] == [4, 25, None]


def test_the_figure_shows_every_arm_and_cuts_nothing_off(tmp_path):
    cells = Overlap.cells(wanted())
    runs = made([c for cell in cells for c in cell.configs], tmp_path, lambda c: 0.9 if c.meta_lr > 0.1 else 0.86)
    drawn = draw(AXES, cells, cell_rows(cells, runs))
    check_apart(drawn)
    assert [len(panel.containers) for panel in drawn.axes] == [len(ARMS)] * 3


def test_a_small_overlap_from_end_to_end(tmp_path):
    """With minibatches of all 100 images, cycling and drawing anew are the same run to the last bit."""
    vary = ["--vary", "arm=cycling,replacement", "--vary", "inner_batch=100"]
    assert main(["--study", "overlap", *TOY, *vary, "--meta-steps", "3", "--out", str(tmp_path)]) == 0
    cycling, replacement = read(tmp_path / "study-overlap" / "overlap.csv")
    assert (cycling["arm"], replacement["arm"]) == ("cycling", "replacement")
    assert cycling["run_ids"] != replacement["run_ids"]
    same = ("test_acc", "test_acc_transductive", "stream_sha256", "train_images_per_class")
    assert [cycling[c] for c in same] == [replacement[c] for c in same]
    assert cycling["train_images_per_class"] == "20"
