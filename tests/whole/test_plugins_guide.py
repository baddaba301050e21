"""PLUGINS.md: its files are written as printed, checked, held against other code, and run in the comparison."""

import re

import pytest
import torch
import torch.nn.functional as F
from commands import table
from places import REPOSITORY
from torch.func import functional_call

from bench.check import command as check
from bench.check.problem import image_tasks, relative_error, small_classifier
from bench.cli import command
from bench.registry import ALGORITHMS, BACKBONES, DATASETS, create_algorithm

GUIDE = (REPOSITORY / "PLUGINS.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"runs this file: (\w+\.py) -->\n```python\n(.*?)```", GUIDE, re.DOTALL))
NAMES = {"my_anil.py": "my-anil", "my_gratings.py": "my-gratings", "my_residual.py": "my-residual"}
COMMANDS = re.findall(r"^python (run_bench\.py --plugin .*)$", GUIDE, re.MULTILINE)


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """The guide's files in a folder named as in the guide, gone from this process's registries afterwards."""
    folder = tmp_path_factory.mktemp("guide") / "my_plugins"
    folder.mkdir()
    for name, code in FILES.items():
        (folder / name).write_text(code, encoding="utf-8")
    yield folder
    for registry in (ALGORITHMS, DATASETS, BACKBONES):
        for name in NAMES.values():
            registry._classes.pop(name, None)


def test_the_guides_files_pass_the_check_as_the_guide_prints_it(plugins, capsys):
    assert list(FILES) == list(NAMES)
    assert check.main([str(plugins / name) for name in FILES]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if re.match(r"(algorithm|dataset|backbone) ", line)] == list(
        NAMES.values()
    )
    printed = re.search(r"^(algorithm my-anil\n.*?)  \.\.\.$", GUIDE, re.DOTALL | re.MULTILINE).group(1)
    rounding = re.compile(r"to \d+e-\d+")  # differs between machines
    assert rounding.sub("", out).startswith(rounding.sub("", printed))


def test_the_failure_that_the_guide_shows_is_the_one_that_comes(plugins, tmp_path, capsys):
    broken = FILES["my_anil.py"].replace("create_graph=training", "create_graph=False").replace("my-anil", "my-first")
    (tmp_path / "my_first.py").write_text(broken, encoding="utf-8")
    try:
        assert check.main([str(tmp_path / "my_first.py")]) == 1
    finally:
        ALGORITHMS._classes.pop("my-first", None)
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("  FAILED")] == ["order"]
    shown = re.search(r"^(  FAILED   order .*?), \.\.\.$", GUIDE, re.DOTALL | re.MULTILINE).group(1)
    percent = re.compile(r"\d+(\.\d+)?%")
    assert percent.sub("", shown) in percent.sub("", out)


def test_the_guides_algorithm_equals_a_loop_over_tasks_written_from_the_paper(plugins, rng):
    """The last layer adapts by explicit steps on one unstacked network per task; autograd differentiates it all."""
    check.load_plugin(plugins / "my_anil.py")
    anil, task_loss = create_algorithm("my-anil", inner_lr=0.2, inner_steps=3), small_classifier(rng)
    tasks, slow = image_tasks(rng, n_tasks=3, size=8), task_loss.weights
    leaves = {name: w.clone().requires_grad_() for name, w in slow.items()}
    total = 0.0
    for t in range(3):
        fast = dict(leaves)
        for _ in range(3):
            logits = functional_call(task_loss.network, fast, (tasks.support.x[t],))
            head = {name: fast[name] for name in ("7.weight", "7.bias")}
            grads = torch.autograd.grad(
                F.cross_entropy(logits, tasks.support.y[t]), list(head.values()), create_graph=True
            )
            fast |= {name: w - 0.2 * g for (name, w), g in zip(head.items(), grads)}
        logits = functional_call(task_loss.network, fast, (tasks.query.x[t],))
        total = total + F.cross_entropy(logits, tasks.query.y[t]) / 3
    expected = dict(zip(leaves, torch.autograd.grad(total, list(leaves.values()))))
    got = anil.meta_grad(task_loss, slow, tasks).grads
    assert relative_error(got, expected) < 1e-12


@pytest.mark.usefixtures("blank_pictures")
def test_the_guides_comparisons_run_as_printed(plugins, monkeypatch):
    """Two commands: the algorithm alone on glyphs, and all three plugins together; nothing of the repository edited."""
    assert len(COMMANDS) == 2
    monkeypatch.chdir(plugins)
    for printed in COMMANDS:
        script, *args = printed.replace("../my_plugins/", "").split()
        assert script == "run_bench.py"
        assert command.main(args) == 0  # in this process, which has imported torch
        rows = table(plugins / args[args.index("--out") + 1] / "summary.csv")
        assert [(row["algo"], row["status"]) for row in rows] == [("maml", "ok"), ("my-anil", "ok")]
        assert rows[0]["stream_sha256"] == rows[1]["stream_sha256"]
    assert {(row["dataset"], row["backbone"]) for row in rows} == {("my-gratings", "my-residual")}


def test_links_in_the_guide_exist_and_pages_link_to_it():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", GUIDE):
        assert (REPOSITORY / target).exists(), target
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "(PLUGINS.md)" in (REPOSITORY / page).read_text(encoding="utf-8")
