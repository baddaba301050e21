"""Plugins of an installed package: one that is built and installed here, beside one whose import fails."""

import os
import re
import subprocess
import sys

import pytest
from commands import run_bench, table
from places import REPOSITORY

GUIDES = [REPOSITORY / "docs" / "guides" / f"{page}.md" for page in ("algorithm", "data", "network")]
PRINTED = re.findall(
    r"runs this file: (\S+) -->\n```\w+\n(.*?)```", "".join(p.read_text(encoding="utf-8") for p in GUIDES), re.DOTALL
)
BUDGET = [
    "--meta-steps",
    "4",
    "--meta-batch",
    "2",
    "--val-points",
    "1",
    "--val-tasks",
    "4",
    "--test-tasks",
    "8",
    "--adaptation-tasks",
    "0",
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the guide's package, built by pip from its pyproject.toml, and a broken package."""
    folder = tmp_path_factory.mktemp("package")
    source, target, broken = folder / "source", folder / "site", folder / "broken"
    source.mkdir()
    broken.mkdir()
    for name, content in PRINTED:
        (source / name).write_text(content, encoding="utf-8")
    (broken / "broken_plugin.py").write_text("raise RuntimeError('two\\nlines')\n", encoding="utf-8")
    (broken / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "broken-plugin"\nversion = "1"\n'
        '[project.entry-points."metabench.algorithms"]\nbroken = "broken_plugin"\n'
        '[tool.setuptools]\npy-modules = ["broken_plugin"]\n',
        encoding="utf-8",
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    pip += ["--disable-pip-version-check", "--target", str(target), str(source), str(broken)]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (target / "my_plugins-1.0.dist-info" / "entry_points.txt").is_file()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(REPOSITORY)])}
    environment.pop("BENCH_PLUGIN_WARNINGS", None)
    return environment


def test_installed_plugins_are_listed_and_a_broken_one_costs_one_line(installed, tmp_path):
    done = run_bench("--list", cwd=tmp_path, env=installed)
    assert done.returncode == 0, done.stderr
    for name in ("my-anil", "my-gratings", "my-residual", "maml", "omniglot", "conv4"):
        assert re.search(rf"^{name}\s", done.stdout, re.MULTILINE), name
    assert done.stderr.splitlines() == [
        "WARNING: installed plugin 'broken_plugin' (metabench.algorithms) is left out, its import failed:"
        " RuntimeError: two lines"
    ]


def test_installed_plugins_of_three_kinds_run_in_the_comparison(installed, tmp_path):
    flags = [
        "--algos",
        "maml,my-anil",
        "--dataset",
        "my-gratings",
        "--backbone",
        "my-residual",
        "--device",
        "cpu",
        "--out",
        "out",
    ]
    done = run_bench(*flags, *BUDGET, cwd=tmp_path, env=installed)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "out" / "summary.csv")
    assert [(r["algo"], r["dataset"], r["backbone"], r["status"]) for r in rows] == [
        (algo, "my-gratings", "my-residual", "ok") for algo in ("maml", "my-anil")
    ]
    assert done.stderr.count("broken_plugin") == 1, "once for a command, however many processes it starts"
