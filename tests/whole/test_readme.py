"""The README's plugin example, run as printed, and its two commands."""

import re

from commands import SMALL, run_bench, table
from places import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_plugin_example_runs_as_printed(tmp_path):
    code = re.search(r"this plugin as it is printed -->\n```python\n(.*?)```", README, re.DOTALL).group(1)
    name = re.search(r"Save this as\s`(\w+\.py)`", README).group(1)
    command = re.search(rf"^python run_bench\.py (--plugin {name} .*)$", README, re.MULTILINE).group(1)
    (tmp_path / name).write_text(code, encoding="utf-8")
    done = run_bench(*command.split(), *SMALL, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "out" / "summary.csv")
    assert [r["algo"] for r in rows] == ["fomaml", "first-order-anil"]
    assert rows[0]["stream_sha256"] == rows[1]["stream_sha256"]


def test_the_two_commands_name_files_that_exist():
    assert "pip install -r requirements.txt && python run_bench.py --algos reptile,fomaml,maml" in README
    assert "pip install -r requirements-dev.txt && pytest" in README
    for name in ("requirements.txt", "requirements-dev.txt", "run_bench.py"):
        assert (REPOSITORY / name).is_file()
