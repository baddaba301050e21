"""The README's plugin example, run as printed, and its commands."""

import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import torch
from commands import SMALL, table
from made_runs import make_row
from PIL import Image
from places import REPOSITORY

from bench.cli.adapt import adapt
from bench.records.run import write_run
from bench.registry import create_algorithm
from bench.settings.config import RunConfig
from bench.training.weights import plain_network, write_weights

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_plugin_example_runs_as_printed(tmp_path):
    code = re.search(r"this plugin as it is printed -->\n```python\n(.*?)```", README, re.DOTALL).group(1)
    name = re.search(r"Save this as\n`(\w+\.py)`", README).group(1)
    command = re.search(rf"^python run_bench\.py (--plugin {name} .*)$", README, re.MULTILINE).group(1)
    (tmp_path / name).write_text(code, encoding="utf-8")
    args = [sys.executable, str(REPOSITORY / "run_bench.py"), *command.split(), *SMALL, "--out", "out"]
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "out" / "summary.csv")
    assert [r["algo"] for r in rows] == ["fomaml", "first-order-anil"]
    assert rows[0]["stream_sha256"] == rows[1]["stream_sha256"]


def test_the_weights_adapt_with_torch_alone_as_bench_adapt_does(tmp_path, monkeypatch):
    """On one noisy image of each of five classes: the same answers, from the weights that a run leaves."""
    code = re.search(r"this example as it is printed -->\n```python\n(.*?)```", README, re.DOTALL).group(1)
    config = RunConfig(algo="maml", hyperparameters={"inner_lr": 0.4, "inner_steps": 5}, seed=3)
    run, maml, row = tmp_path / "run", create_algorithm("maml"), make_row("maml", run_id="run")
    slow = dict(plain_network(config, maml, (1, 28, 28)).named_parameters())
    write_run(run, row, {"config": asdict(config), "data": {"shape": [1, 28, 28]}}, [], [], [])
    write_weights(run / "weights.pt", config, maml, (1, 28, 28), slow)
    rng = np.random.default_rng(0)
    ink = rng.integers(0, 256, (5, 1, 28, 28)) + rng.integers(-15, 15, (5, 5, 28, 28))
    ink = ink.clip(0, 255).astype(np.uint8)  # [5, 5, 28, 28]
    for label, images in enumerate(ink):
        (tmp_path / "mine" / str(label)).mkdir(parents=True)
        for i, image in enumerate(images):
            name = f"{label}/0.png" if i == 0 else f"{label}-{i}.png"
            Image.fromarray(255 - image).save(tmp_path / "mine" / name)
    monkeypatch.setattr("bench.cli.adapt._beyond_the_network", lambda *_: ({}, {}))  # which needs a checkpoint
    told = [int(p.label) for p in adapt(run, tmp_path / "mine")]
    images = torch.tensor(ink)[:, :, None] / 255
    space = {"support": images[:, 0], "labels": torch.arange(5), "query": images[:, 1:].flatten(0, 1)}
    monkeypatch.chdir(run)
    exec(code, space)  # the README's
    assert [int(answer) for answer in space["answers"]] == told
    assert len(set(told)) == 5


def test_the_two_commands_name_files_that_exist():
    assert "pip install -r requirements.txt && python run_bench.py --algos reptile,fomaml,maml" in README
    assert "pip install -r requirements-dev.txt && pytest" in README
    for name in ("requirements.txt", "requirements-dev.txt", "run_bench.py"):
        assert (REPOSITORY / name).is_file()


def test_links_and_pictures_in_the_readme_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target
