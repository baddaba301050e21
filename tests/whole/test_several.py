"""Several commands on one folder of results, and a folder that is full."""

import concurrent.futures
import json
import re
import subprocess
import sys
import time

import pytest
from commands import SMALL, run_bench, table
from places import REPOSITORY

from bench.runs.presence import announce


def test_two_commands_with_one_grid_share_its_runs_and_both_show_all_of_them(tmp_path):
    """One of them works on two runs at a time; something else that says it is a run is under way all along."""
    other = announce()
    args = [*SMALL, "--algos", "fomaml", "--threads", "1", "--seeds", "0,1,2", "--out", tmp_path / "out"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        ends = list(pool.map(lambda jobs: run_bench(*args, "--jobs", jobs), "12"))
    other.close()
    assert [done.returncode for done in ends] == [0, 0], ends
    lines = [line for done in ends for line in done.stdout.splitlines() if re.match(r"\[\d/3\] fomaml.* plain", line)]
    assert len(lines) == 6
    assert len([line for line in lines if not line.endswith(")")]) == 3, "each run is made once and kept once"
    rows = table(tmp_path / "out" / "summary.csv")
    assert [(row["seed"], row["status"], row["resumed"]) for row in sorted(rows, key=lambda r: r["seed"])] == [
        (seed, "ok", "0") for seed in "012"
    ]
    assert not (tmp_path / "out" / "set-aside").exists()
    assert all(int(row["beside"]) >= 1 for row in rows)


@pytest.mark.slow
def test_fifty_commands_on_one_folder_make_every_run_once(tmp_path):
    """With the real workers and all of the report; prints the figure."""
    args = [*SMALL, "--algos", "reptile,fomaml", "--threads", "1", "--seeds", "0,1,2", "--out", tmp_path / "out"]
    command = [sys.executable, str(REPOSITORY / "run_bench.py"), *map(str, args)]
    began = time.monotonic()
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(50)
    ]
    ends = [process.communicate(timeout=7200) for process in processes]
    assert {process.returncode for process in processes} == {0}, ends
    ended = re.compile(r"\[\d/6\] [a-z]+ 5-way.* plain.*[^)]$")
    made = [line for out, _ in ends for line in out.splitlines() if ended.match(line)]
    rows = table(tmp_path / "out" / "summary.csv")
    assert len(made) == len(rows) == len({row["run_id"] for row in rows}) == 6
    assert {(row["status"], row["resumed"]) for row in rows} == {("ok", "0")}
    print(f"\n50 processes, 6 runs: {len(made)} made, {len(rows)} rows, {time.monotonic() - began:.0f} s")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 KiB, which only root can make."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_a_full_disk_is_one_line_and_harms_nothing_that_has_finished(small_disk):
    out = small_disk / "out"
    out.mkdir()
    filling = out / "filling"
    algos = ["--algos", "fomaml,fills-disk,maml", "--plugin", REPOSITORY / "tests" / "plugins" / "troubled.py"]
    done = run_bench(*SMALL, *algos, "--out", out)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("run_bench.py: No space left on device: ")
    assert "Traceback" not in done.stderr
    (record,) = (json.loads(path.read_text()) for path in out.glob("runs/*/run.json"))
    assert (record["row"]["algo"], record["row"]["status"]) == ("fomaml", "ok")
    assert not list(out.glob("runs/*/.*"))
    filling.unlink()
    done = run_bench(*SMALL, "--algos", "fomaml,maml", "--out", out)
    assert done.returncode in (0, 1)  # the plots may still be too big for it
    assert "(kept; --fresh runs it again)" in done.stdout
