"""What holds from the first line of a command on."""

import os
import signal
import subprocess
import sys

import pytest
from places import REPOSITORY

from bench.check.command import main as check
from bench.runs.signals import forwarding_signals
from bench.system.start import heeded, requirement

COMMANDS = {
    "run_bench.py": ["run_bench.py", "--list"],
    "bench.check": ["-m", "bench.check", "maml"],
    "bench.adapt": ["-m", "bench.adapt", "run", "folder"],
    "bench.verify": ["-m", "bench.verify", "folder"],
    "bench.speed": ["-m", "bench.speed"],
    "bench.contact_sheet": ["-m", "bench.contact_sheet", "--out", "sheet.png"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_package_is_one_line_that_says_how_to_get_it(name, tmp_path):
    """After the line on what takes long, which comes before torch does."""
    done = without("torch", COMMANDS[name], tmp_path)
    begun, line = done.stderr.splitlines()
    assert begun.startswith(f"{name}: loading torch")
    assert line == f"{name}: the package torch is not installed; `pip install -r requirements.txt` installs it"
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("package", ["higher", "pandas"])
def test_one_of_a_built_in_plugin_or_of_the_harness_is_named_alike(package, tmp_path):
    done = without(package, COMMANDS["run_bench.py"], tmp_path)
    last = done.stderr.splitlines()[-1]
    assert f"the package {package} is not installed; `pip install -r requirements.txt`" in last
    assert last.startswith("run_bench.py: ")
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_what_a_plugin_misses_is_told_as_the_plugins(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("import torch_of_others\n")
    assert check([str(tmp_path / "mine.py")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"plugin '{tmp_path / 'mine.py'}' failed on import" in line
    assert "No module named 'torch_of_others'" in line
    assert "pip" not in line


def without(package, command, cwd):
    """Run a command in an interpreter that has a package not."""
    (cwd / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    path = os.pathsep.join([str(cwd), str(REPOSITORY)])
    first, *rest = map(str, command)
    first = str(REPOSITORY / first) if first.endswith(".py") else first
    return subprocess.run(
        [sys.executable, first, *rest], capture_output=True, text=True, timeout=120, cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def test_packages_have_the_names_that_pip_knows():
    assert "package pillow is" in requirement("PIL.Image")
    assert "package torch is" in requirement("torch.nn.functional")
    assert requirement("tor") is None
    assert requirement(None) is None


def test_signals_that_are_ignored_or_that_others_use_stay_as_they_are():
    for handler in (signal.SIG_IGN, lambda number, frame: None):
        before = signal.signal(signal.SIGHUP, handler)
        try:
            assert signal.SIGHUP not in heeded()
            with forwarding_signals():
                assert signal.getsignal(signal.SIGHUP) is handler
                assert signal.getsignal(signal.SIGUSR2) not in (signal.SIG_DFL, handler)
        finally:
            signal.signal(signal.SIGHUP, before)
    assert {signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1} <= set(heeded())


def test_what_stdout_cannot_encode_is_written_in_plain_letters():
    code = "from bench.system.start import *\nspeak_plainly()\nprint('0.5 ± 0.1 é')\nprint(len(as_shown('±')))"
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "0.5 +/- 0.1 \\xe9\n3\n", done.stderr
