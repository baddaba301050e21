"""Rows become verdicts at the targets, ratios round by round, and a page."""

from bench.speed.peers import PROJECT, VARIANTS
from bench.speed.report import MET, MISSED, Results, SpeedRow, markdown, ratio, verdicts

FACTS = {"device_name": "x", "threads": 1, "torch_version": "2", "git_commit": "c", "rounds": 3}


def made_results(device, peer, share, drawing, second, warm):
    """Rows of maml and fomaml at S1 in which the best peer takes ``peer`` times as long as the project."""
    rows = []
    for algo in ("maml", "fomaml"):
        for name in VARIANTS:
            ratio = {"loop": peer, "vmap": 2 * peer, PROJECT: 1.0, "supervised": 0.5}.get(name)
            status = "ok" if ratio else "not installed"
            measured = {"ms_median": 10 * ratio, "ms_min": 9 * ratio, "ms_max": 11 * ratio} if ratio else {}
            ours = (
                {"share_of_matmul_rate": share, "task_share": drawing, "gflop": 1.0, "gflop_least": 0.5}
                if name == PROJECT
                else {}
            )
            rows.append(
                SpeedRow(
                    setting="S1", algo=algo, variant=name, status=status, ratio_to_project=ratio, device=device,
                    **measured, **ours, **FACTS,
                )
            )  # fmt: skip
    return Results(rows, 1e-13, "command", 0.1, {"S1": second}, {"maml": (20.0, warm)})


def test_ratios_are_taken_round_by_round():
    """The second round ran on a busy machine; the ratio of the medians, 22 / 10, would be wrong."""
    assert ratio([2.0, 40.0, 22.0], [1.0, 20.0, 10.0]) == 2.0


def test_verdicts_on_a_cpu_turn_at_the_targets():
    good = verdicts(made_results("cpu", peer=1.5, share=0.5, drawing=0.0199, second=2.3, warm=14.9))
    bad = verdicts(made_results("cpu", peer=1.49, share=0.49, drawing=0.02, second=2.31, warm=15.0))
    assert [target for target, *_ in good] == [target for target, *_ in bad]
    assert len(good) == 2 * 3 + 2
    assert {verdict for *_, verdict in good} == {MET}
    assert good[1][1] == "50% (25% counting the least work)"
    assert {verdict for *_, verdict in bad} == {MISSED}


def test_verdicts_on_a_gpu_turn_at_the_targets():
    for peer, expected in ((100.0, MET), (99.0, MISSED)):
        found = verdicts(made_results("cuda", peer, share=0.1, drawing=0.001, second=9.0, warm=99.0))
        assert [v for target, _, v in found if "as fast as the loop" in target] == [expected, expected]
        assert len(found) == 4


def test_the_page_names_the_variants_that_did_not_run():
    page = markdown(made_results("cpu", 1.5, 0.5, 0.01, 2.0, 4.0))
    assert "| S1 maml   |   15.0 | not installed |   30.0 |      10.0 |         5.00 |" in page
