"""The guides: their files are written as printed, checked, held against other code, and run in the comparison."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import table
from guide import FILES, TEXT, commands, written
from made_runs import make_row
from PIL import Image
from places import REPOSITORY
from torch.func import functional_call

from bench.check import command as check
from bench.check.trial import image_tasks, relative_error, small_classifier
from bench.cli import command
from bench.cli.adapt import adapt
from bench.network.build import plain_network
from bench.records.run import write_run
from bench.registry import ALGORITHMS, BACKBONES, DATASETS, create_algorithm
from bench.settings.config import RunConfig
from bench.training.weights import write_weights

NAMES = {
    "first_order_anil.py": "first-order-anil",
    "my_anil.py": "my-anil",
    "my_meta_sgd.py": "my-meta-sgd",
    "my_multi_step.py": "my-multi-step",
    "my_prototypes.py": "my-prototypes",
    "my_gratings.py": "my-gratings",
    "my_residual.py": "my-residual",
}


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """The guide's files in a folder named as in the guide, gone from this process's registries afterwards."""
    yield written(tmp_path_factory.mktemp("guide"), NAMES)
    for registry in (ALGORITHMS, DATASETS, BACKBONES):
        for name in NAMES.values():
            registry._classes.pop(name, None)


def test_the_guides_files_pass_the_check_as_the_guide_prints_it(plugins, capsys):
    assert check.main([str(plugins / name) for name in NAMES]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if re.match(r"(algorithm|dataset|backbone) ", line)] == list(
        NAMES.values()
    )
    printed = re.search(r"^(algorithm my-anil\n.*?)  \.\.\.$", TEXT["algorithm"], re.DOTALL | re.MULTILINE).group(1)
    rounding = re.compile(r"to \d+e-\d+")  # differs between machines
    assert rounding.sub("", printed) in rounding.sub("", out)


def test_the_failure_that_the_guide_shows_is_the_one_that_comes(plugins, tmp_path, capsys):
    broken = FILES["my_anil.py"].replace("create_graph=training", "create_graph=False").replace("my-anil", "my-first")
    (tmp_path / "my_first.py").write_text(broken, encoding="utf-8")
    try:
        assert check.main([str(tmp_path / "my_first.py")]) == 1
    finally:
        ALGORITHMS._classes.pop("my-first", None)
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("  FAILED")] == ["order"]
    shown = re.search(r"^(  FAILED   order .*?), \.\.\.$", TEXT["algorithm"], re.DOTALL | re.MULTILINE).group(1)
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
    """The algorithms alone on glyphs, and all three plugins together; nothing of the repository edited."""
    short, first, _, last = [*commands("algorithm"), *commands("network")]
    printed = [first, last]
    monkeypatch.chdir(plugins)
    assert command.main(short.replace("../my_plugins/", "").split()) == 0  # in this process, which has imported torch
    for line in printed:
        args = line.replace("../my_plugins/", "").split()
        assert command.main(args) == 0
        rows = table(plugins / args[args.index("--out") + 1] / "summary.csv")
        assert [(row["algo"], row["status"]) for row in rows] == [("maml", "ok"), ("my-anil", "ok")]
        assert rows[0]["stream_sha256"] == rows[1]["stream_sha256"]
    assert {(row["dataset"], row["backbone"]) for row in rows} == {("my-gratings", "my-residual")}


def test_the_short_plugin_is_the_one_of_the_readme_and_the_tutorial():
    """Its run as printed is in tests/whole/test_readme.py."""
    printed = FILES["first_order_anil.py"]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert f"```python\n{printed}```" in readme
    notebook = json.loads((REPOSITORY / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    (cell,) = (text for c in notebook["cells"] if (text := "".join(c["source"])).startswith("%%writefile"))
    assert cell.partition("\n")[2].strip() == printed.strip()


def test_the_weights_adapt_with_torch_alone_as_bench_adapt_does(tmp_path, monkeypatch):
    """On one noisy image of each of five classes: the same answers, from the weights that a run leaves."""
    code = re.search(r"this example as it is printed -->\n```python\n(.*?)```", TEXT["weights"], re.DOTALL).group(1)
    config = RunConfig(algo="maml", hyperparameters={"inner_lr": 0.4, "inner_steps": 5}, seed=3)
    run, maml, row = tmp_path / "run", create_algorithm("maml"), make_row("maml", run_id="run")
    slow = dict(plain_network(config, maml, (1, 28, 28)).named_parameters())
    write_run(run, row, {"config": asdict(config), "data": {"shape": [1, 28, 28]}}, [], [], [])
    write_weights(run / "weights.pt", config, maml, (1, 28, 28), slow)
    rng = np.random.default_rng(0)
    ink = rng.integers(0, 256, (5, 1, 28, 28)) + rng.integers(-15, 15, (5, 5, 28, 28))
    ink = ink.clip(0, 255).astype(np.uint8)  # [5, 5, 28, 28]
    ink[..., [0, -1], :] = ink[..., [0, -1]] = 0  # paper around it
    for label, images in enumerate(ink):
        (tmp_path / "mine" / str(label)).mkdir(parents=True)
        for i, image in enumerate(images):
            name = f"{label}/0.png" if i == 0 else f"{label}-{i}.png"
            Image.fromarray(255 - image).save(tmp_path / "mine" / name)
    told = [int(p.label) for p in adapt(run, tmp_path / "mine")]
    images = torch.tensor(ink)[:, :, None] / 255
    space = {"support": images[:, 0], "labels": torch.arange(5), "query": images[:, 1:].flatten(0, 1)}
    monkeypatch.chdir(run)
    exec(code, space)  # the guide's
    assert [int(answer) for answer in space["answers"]] == told
    assert len(set(told)) == 5
