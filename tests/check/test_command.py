"""``bench.check``: every breach is found by the check that is about it, and explained; the command and its statuses."""

import pytest
import torch
from places import PLUGINS

from bench.check import algorithm, backbone, dataset, device, pace
from bench.check import command as check
from bench.check.verdicts import Caution, Status, Verdict, ask, ask_all
from bench.registry import ALGORITHMS, create_algorithm, load_plugin
from tests.plugins import wrong, wrong_data, wrong_networks

THREE_KINDS = PLUGINS / "three_kinds.py"


def failures(checks, subject):
    """Verdicts that failed, by check; timing is a test of its own."""
    found = ask_all([c for c in checks if c.name != "outpaces"], subject)
    return {v.check: v for v in found if v.status == Status.FAILED}


def only(failed, name, words):
    assert list(failed) == [name], failed
    assert words in failed[name].found, failed[name].found
    assert failed[name].remedy


@pytest.mark.parametrize("cls", wrong.ALGORITHMS, ids=lambda cls: cls.__name__)
def test_a_broken_algorithm_fails_the_check_it_breaks_and_no_other(cls):
    only(failures(algorithm.CHECKS, algorithm.Algorithm("wrong", cls)), *wrong.ALGORITHMS[cls])


@pytest.mark.parametrize("cls", wrong_data.DATASETS, ids=lambda cls: cls.__name__)
def test_a_broken_data_set_fails_the_check_it_breaks_and_no_other(cls):
    only(failures(dataset.CHECKS, dataset.Data("wrong", cls)), *wrong_data.DATASETS[cls])


@pytest.mark.parametrize("cls", wrong_networks.BACKBONES, ids=lambda cls: cls.__name__)
def test_a_broken_backbone_fails_the_check_it_breaks_and_no_other(cls):
    only(failures(backbone.CHECKS, backbone.Network("wrong", cls)), *wrong_networks.BACKBONES[cls])


def test_a_name_that_flags_cannot_take_is_found():
    cls = ALGORITHMS.get("maml")
    only(failures(algorithm.CHECKS, algorithm.Algorithm("a,b", cls)), "declared", "'a,b' does not fit flags")


def test_a_loop_over_tasks_is_warned_of_and_a_batch_is_not():
    """The loop does everything twice, so that no noise hides it."""
    (outpaces,) = (c for c in algorithm.CHECKS if c.name == "outpaces")
    slow = ask(outpaces, algorithm.Algorithm("wrong", wrong.LoopsOverTasks))
    assert (slow.status, slow.check) == (Status.WARNING, "outpaces")
    assert "Python loop over tasks" in slow.remedy
    assert pace.pace(0.5) == "16 tasks at once: 0.50 of a Python loop's time"
    with pytest.raises(Caution, match=r"1\.10 of a Python loop's time"):
        pace.pace(1.1)


def test_learned_rates_that_nothing_leads_to_are_warned_of():
    load_plugin(THREE_KINDS)
    (learns,) = (c for c in algorithm.CHECKS if c.name == "learns")
    still = ask(learns, algorithm.Algorithm("wrong", wrong.RatesWithoutAGraph))
    assert (still.status, still.check) == (Status.WARNING, "learns")
    assert still.found.startswith("all extra weights get a gradient of zero, rate/all among them")
    moved = ask(learns, algorithm.Algorithm("toy-meta-sgd", ALGORITHMS.get("toy-meta-sgd")))
    assert moved.status == Status.OK
    assert ask(learns, algorithm.Algorithm("maml", ALGORITHMS.get("maml"))).status == Status.SKIPPED


@pytest.mark.parametrize(
    ("wait", "words"),
    [
        (lambda x: x.sum().item(), ".item()"),
        (lambda x: x.numpy(), ".numpy()"),
        (lambda x: x.cpu(), ".cpu()"),
        (lambda x: x.to("cpu"), '.to("cpu")'),
        (lambda x: float(x[0]), "float(tensor)"),
        (lambda x: list(range(x[0].long())), "a Python index or in range()"),
        (lambda x: f"{x[0]:.2f}", "a formatted string"),
        (lambda x: x.nonzero(), "nonzero()"),
        (lambda x: x.unique(), "unique()"),
        (lambda x: torch.equal(x, x), "torch.equal()"),
        (lambda x: torch.nn.functional.one_hot(x.long()), "one_hot(y) without a number of classes"),
        (lambda x: torch.nn.functional.one_hot(x.long(), num_classes=-1), "one_hot(y) without a number of classes"),
        (lambda x: x[torch.arange(2)], "torch.arange(...) without a device"),
        (lambda x: x + torch.zeros(2), "torch.zeros(...) without a device"),
        (lambda x: x + torch.tensor([1.0, 2.0]), "a copy from the host"),
    ],
)
def test_what_waits_for_a_device_is_refused_on_a_cpu(wait, words):
    x = torch.ones(2)
    with device.refused(), pytest.raises(device.HostSync) as caught:
        wait(x)
    assert words in str(caught.value)
    assert caught.value.remedy


def test_what_a_device_does_by_itself_is_let_through():
    x = torch.ones(2, requires_grad=True)
    with device.refused():
        y = torch.where(x > 0, x, 2 * x)[torch.arange(2, device=x.device)] + torch.tensor(0.5) + torch.zeros(())
        hot = torch.nn.functional.one_hot(torch.arange(2, device=x.device), 2)
        (g,) = torch.autograd.grad((y * hot).sum(), x, create_graph=True)
        g.to(x.device)
    assert g.shape == (2,)


def test_the_meta_step_to_capture_is_one_that_runs():
    step = device.meta_step("maml", create_algorithm("maml", inner_steps=1), torch.device("cpu"))
    step.go_to(0)
    step()
    assert step.losses[0] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_meta_step_is_captured_on_a_gpu(capsys):
    assert check.main(["fomaml"]) == 0
    assert "captured in a CUDA graph" in capsys.readouterr().out


def test_an_inner_loop_without_zero_gradients_is_told_so_once():
    """A bias in front of BatchNorm changes no loss; an inner step written for the head alone meets it."""
    verdicts = {v.check: v for v in ask_all(algorithm.CHECKS, algorithm.Algorithm("wrong", wrong.ForgetsZeros))}
    assert "materialize_grads=True" in verdicts["returns"].remedy
    assert {verdicts[name].found for name in ("predicts", "adapts")} == {"the same as 'returns'"}
    assert all(verdicts[name].status == Status.FAILED for name in ("returns", "predicts", "adapts"))


def test_a_name_where_a_list_of_names_belongs_is_told_as_that():
    (returns,) = (c for c in algorithm.CHECKS if c.name == "returns")
    found = ask(returns, algorithm.Algorithm("wrong", wrong.NamesOneWeight))
    assert (found.status, found.found) == (Status.FAILED, "adapted() returns '7.bias'")
    assert "[names[-1]]" in found.remedy


def test_what_is_summed_over_tasks_is_not_called_of_the_wrong_order_too():
    only(failures(algorithm.CHECKS, algorithm.Algorithm("wrong", wrong.SumsSecondOrder)), "averaged", "3 times")


def test_verdicts_are_aligned_at_80_columns():
    printed = check.lines(Verdict("order", Status.FAILED, "found " * 20, "do " * 30))
    assert printed[0].startswith("  FAILED   order          found")
    assert all(len(line) <= 80 and line[:25].strip() in ("", "FAILED   order") for line in printed)
    assert "To do: do do" in " ".join(printed)


def test_a_file_that_is_right_gives_0_and_one_that_is_wrong_1(tmp_path, capsys):
    text = (
        "from algorithms.fomaml import FirstOrderMAML\nfrom bench.registry import register_algorithm\n"
        "@register_algorithm('checked-NAME')\nclass Mine(FirstOrderMAML):\n    order = 'ORDER'\n"
    )
    for name, order, status in (("right", "first", 0), ("wrong", "second", 1)):
        path = tmp_path / f"{name}.py"
        path.write_text(text.replace("NAME", name).replace("ORDER", order))
        assert check.main([str(path)]) == status
        out = capsys.readouterr().out
        assert out.startswith(f"algorithm checked-{name}\n  ok       declared       settings: inner_lr, inner_steps, ")
        assert all(len(line) <= 80 for line in out.splitlines())
        assert out.splitlines()[-1].startswith(f"{len(algorithm.CHECKS)} checks: ")
    assert "1 FAILED" in out
    for kind in ("right", "wrong"):  # so that no other test of this process finds them
        del ALGORITHMS._classes[f"checked-{kind}"]


def test_wrong_usage_is_one_line_and_2(tmp_path, capsys):
    broken, empty = tmp_path / "broken.py", tmp_path / "empty.py"
    broken.write_text("1 / 0\n")
    empty.write_text("")
    for args, words in (
        ([], "no plugin is named"),
        ([str(tmp_path / "none.py")], "is not a file"),
        ([str(broken)], "failed on import: ZeroDivisionError"),
        ([str(empty)], "registers nothing"),
        (["mamk"], "unknown plugin 'mamk'. Did you mean 'maml'? Accepted: "),
    ):
        assert check.main(args) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert words in err


def test_the_list_names_every_check(capsys):
    assert check.main(["--list"]) == 0
    out = capsys.readouterr().out
    for checks in (algorithm.CHECKS, dataset.CHECKS, backbone.CHECKS):
        assert all(f"  {c.name:14} {c.asks}\n" in out for c in checks)
    assert all(len(line) <= 80 for line in out.splitlines())
