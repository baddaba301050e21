"""Where runs run: the flags that belong together, and what is imported for them."""

import subprocess
import sys

import pytest
from commands import SMALL, uncounted
from places import REPOSITORY

from bench.cli import command
from bench.runs.launchers import launcher, shipping
from bench.runs.launchers.local import Local
from bench.runs.launchers.options import Options

RAY = ["--launcher", "ray"]
WRONG = [
    (["--launcher", "slurm"], "unknown launcher 'slurm'; accepted: local, ray"),
    (["--ray-address", "auto"], "--ray-address auto: belongs to --launcher ray; add that, or leave it out"),
    (["--gpus-per-run", "0.5"], "--gpus-per-run 0.5: belongs to --launcher ray"),
    (["--cpus-per-run", "2"], "--cpus-per-run 2: belongs to --launcher ray"),
    (["--exclusive", "--jobs", "2"], "--jobs 2 with --exclusive: a run has this machine for itself; accepted: 1"),
    ([*RAY, "--jobs", "2"], "--jobs 2: belongs to --launcher local; with ray --cpus-per-run"),
    ([*RAY, "--cpus-per-run", "0"], "--cpus-per-run '0'; accepted: 0.01 or more"),
    ([*RAY, "--cpus-per-run", "many"], "--cpus-per-run 'many'; accepted: a number"),
    ([*RAY, "--gpus-per-run", "-1"], "--gpus-per-run -1.0; accepted: 0 or more"),
    ([*RAY, "--gpus-per-run", "1.5"], "--gpus-per-run 1.5; accepted: a part of a GPU, as 0.25, or 1"),
    ([*RAY, "--gpus-per-run", "1"], "--gpus-per-run 1 with --device cpu: leave one of them out"),
    ([*RAY, "--gpus-per-run", "0", "--device", "cuda"], "--gpus-per-run 0 with --device cuda: leave one of them out"),
    ([*RAY, "--exclusive", "--gpus-per-run", "0.5", "--device", "auto"], "each run has a GPU; accepted: 1"),
    ([*RAY, "--study", "cost"], "--launcher ray: study 'cost' measures time; add --exclusive"),
    ([*RAY, "--ray-address", "ray://head:10001"], "is a Ray Client's; accepted: auto, local, or HOST:PORT"),
]


@pytest.mark.parametrize(("args", "words"), WRONG, ids=[" ".join(args) for args, _ in WRONG])
def test_what_does_not_go_together_is_one_line_and_status_2(args, words, tmp_path, capsys):
    if "--study" in args or "ray://head:10001" in args:
        pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")
    assert command.main([*SMALL, "--out", str(tmp_path), *args]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert len(err.splitlines()) == 1
    assert not out
    assert not list(tmp_path.glob("runs/*"))


def test_without_ray_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launcher.importlib.util, "find_spec", lambda name: None)
    assert command.main([*SMALL, "--out", str(tmp_path), *RAY]) == 2
    line = "run_bench.py: --launcher ray needs Ray; `pip install -r requirements-ray.txt` installs it\n"
    assert capsys.readouterr().err == line


def test_nothing_of_ray_is_imported_for_runs_on_this_machine():
    code = "import sys, bench.cli.command; print(sorted(name for name in sys.modules if name.split('.')[0] == 'ray'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, env=uncounted())
    assert done.stdout == "[]\n"


def test_the_launcher_of_this_machine_has_room_for_its_jobs():
    made = launcher.launcher_of(Options(jobs=3))
    assert isinstance(made, Local)
    assert (made.room, made.threads, made.here) == (3, None, True)


def test_a_plugin_travels_with_what_it_imports_and_a_file_of_the_harness_stays(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "far_helper.py").write_text("VALUE = 1\n")
    plugin = tmp_path / "far_plugin.py"
    plugin.write_text("from mine.far_helper import VALUE\n")
    monkeypatch.syspath_prepend(tmp_path)
    names, files = shipping.plugins([plugin, REPOSITORY / "algorithms" / "maml.py"])
    assert names == ["plugins/0/far_plugin.py", "algorithms/maml.py"]
    helpers = ["imports/mine/__init__.py", "imports/mine/far_helper.py"]
    assert sorted(files) == [*helpers, "plugins/0/far_plugin.py"]


def test_data_that_is_too_much_is_refused_with_what_would_be_right(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "MOST", 3)
    (tmp_path / "pictures").write_bytes(b"1234")
    with pytest.raises(shipping.BenchError, match="too much to send to far; put the data at that path on every node"):
        shipping.content({"data_root": tmp_path}, "far")
    monkeypatch.setattr(shipping, "MOST", 4)
    assert shipping.content({"data_root": tmp_path, "cache": None}, "far") == {"data_root/pictures": b"1234"}
