"""Plugins and values that go wrong before anything is trained: one line that names them, and status 2."""

import io
import logging
import sys
from pathlib import Path

import pytest
from commands import SMALL
from helpers import Something
from made_runs import make_run
from places import TOY

from bench.analysis.results import results_of
from bench.api import BenchError, MetaAlgorithm
from bench.cli import command
from bench.cli import compare as comparison
from bench.registry import ALGORITHMS, BACKBONES, DATASETS, Registry, load_plugin
from bench.system.console import Console

HEAD = """
from dataclasses import dataclass, replace
import torch
from torch import nn
from algorithms.fomaml import FirstOrderMAML
from bench.analysis.results import results_of
from bench.api import Backbone, Dataset, MetaGrad
from bench.registry import register_algorithm, register_backbone, register_dataset
from bench.registry import DATASETS
def renamed(root):
    return replace(DATASETS.get('toy')().load(root, root), name='../x')
"""


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Return what a command says of a plugin; what the plugin registers is forgotten afterwards."""
    load_plugin(TOY)
    for registry in (ALGORITHMS, BACKBONES, DATASETS):
        registry.names()
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))

    def ask(code, *args):
        path = tmp_path / "plugin.py"
        path.write_text(HEAD + code)
        status = command.main([*SMALL, "--plugin", str(path), "--out", str(tmp_path / "out"), *args])
        out, err = capsys.readouterr()
        assert (status, out) == (2, "")
        assert not list(tmp_path.glob("**/run.json"))
        (line,) = err.splitlines()
        return line

    return ask


@pytest.mark.parametrize("name", ["team/fomaml", "../../x", "", ".x", "a b", "a" * 65, "é", "a\n", None])
def test_a_name_that_a_folder_cannot_have_is_refused(name):
    with pytest.raises(BenchError, match="cannot be called that; accepted: 1 to 64 letters, digits"):
        Registry("algorithm", MetaAlgorithm).register(name)(Something)


def test_runs_that_cannot_be_read_again_are_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "run_all", lambda *args: 0)
    monkeypatch.setattr(comparison, "write_report", lambda out: results_of([]))
    assert command.main([*SMALL, "--algos", "maml", "--out", str(tmp_path)]) == 1
    assert "1 of the runs made cannot be read again and miss in all tables, as maml-toy-" in capsys.readouterr().err


@pytest.mark.parametrize("code", ["raise SystemExit(0)", "raise SystemExit('bye')", "import sys; sys.exit()"])
def test_a_plugin_that_leaves_on_import_is_refused(code, refused):
    assert "plugin.py' failed on import: SystemExit" in refused(code)


ALGORITHM = "@register_algorithm('odd')\n@dataclass(frozen=True)\nclass Odd(FirstOrderMAML):\n    "
DATASET = "@register_dataset('odd')\nclass Odd(Dataset):\n    "
BACKBONE = "@register_backbone('odd')\n@dataclass(frozen=True)\nclass Odd(Backbone):\n    "
FAILING = [
    (DATASET + "def load(self, root, cache): raise KeyError('pixels')", "dataset 'odd': KeyError: 'pixels'"),
    (DATASET + "def load(self, root, cache): raise OSError('no net')", "dataset 'odd': OSError: no net"),
    (DATASET + "def load(self, root, cache): return None", "dataset 'odd': load returned NoneType"),
    (DATASET + "def load(self, root, cache): return renamed(root)", "unknown name of what a dataset has loaded '../x'"),
    (DATASET + "pass", "dataset 'odd': Can't instantiate abstract class"),
    (ALGORITHM + "def __post_init__(self): assert False, 'never'", "algorithm 'odd': AssertionError: never"),
    (ALGORITHM + "x: 'Nowhere' = 1", "annotations of Odd in "),
    (ALGORITHM + "run_defaults = None", "algorithm 'odd': run_defaults is None"),
    (ALGORITHM + "def extra_weights(self, network): raise KeyError('w')", "algorithm 'odd': KeyError: 'w'"),
    (ALGORITHM + "def extra_weights(self, network): return {'a/b': torch.ones(1).double()}", "'a/b' is torch.float64"),
    (ALGORITHM + "def start(self, slow): pass", "'odd': start(self, slow) does not take what it is given"),
    (ALGORITHM + "def predictors(self, *given): return iter(())", "algorithm 'odd': predictors yields nothing"),
    (ALGORITHM + "def predictors(self, *given): return len", "predictors returned builtin_function_or_method"),
    (ALGORITHM + "def predictors(self, *given): yield lambda x: x.flatten(2)", "to (2, 5, 784); it must be (2, 5, 5)"),
    (BACKBONE + "def build(self, shape, size): raise KeyError('w')", "backbone 'odd' cannot be built"),
    (BACKBONE + "def build(self, shape, size): return None", "build returned NoneType"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "words"), FAILING, ids=[words for _, words in FAILING])
def test_whatever_a_plugin_raises_before_training_is_one_line_that_names_it(code, words, refused):
    kind = {ALGORITHM: "--algos", DATASET: "--dataset", BACKBONE: "--backbone"}
    flag = next(flag for head, flag in kind.items() if code.startswith(head))
    algos = [] if flag == "--algos" else ["--algos", "fomaml"]
    assert words in refused(code, *algos, flag, "odd")


@pytest.mark.parametrize("flag", ["--out", "--plugin", "--log-file", "--config", "--data-root"])
def test_a_path_with_a_nul_is_refused(flag, capsys):
    assert command.main([flag, "a\0b"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a\\x00b" in line


def test_a_log_file_without_room_is_given_up_with_one_warning(capsys):
    console = Console()
    console.open(False, Path("/dev/full"))
    console.say("first")
    logging.getLogger("bench").warning("second")
    console.say("third")
    console.close()
    out, err = capsys.readouterr()
    assert out == "first\nthird\n"
    assert err.count("WARNING") == 1
    assert "Traceback" not in err


def test_names_that_the_terminal_cannot_show_cost_nothing(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    assert command.main(["--algos", "µ", "--out", str(tmp_path)]) == 2
    stream.flush()
    assert b"unknown algorithm '\\xb5'" in stream.buffer.getvalue()


BREACHES = [
    ("raise KeyError('w')", "algorithm 'odd': KeyError: 'w'"),
    ("return None", "algorithm 'odd': meta_grad returned NoneType; it must return a MetaGrad"),
    ("return MetaGrad(None, r.query_loss)", "algorithm 'odd': grads is NoneType; it must map names to tensors"),
    ("return MetaGrad({'w': r.query_loss}, r.query_loss)", "gradients must be named like the slow weights"),
    ("return MetaGrad({n: None for n in r.grads}, r.query_loss)", "algorithm 'odd': gradient of 1.weight is None"),
    ("return MetaGrad(r.grads, r.query_loss.tolist())", "algorithm 'odd': query_loss is list; it must be a tensor"),
    ("return MetaGrad(r.grads, r.query_loss, {'v': 1})", "algorithm 'odd': carry v is int; it must be a tensor"),
]


@pytest.mark.parametrize(("code", "words"), BREACHES, ids=[code for code, _ in BREACHES])
def test_a_breach_of_the_contract_is_found_before_any_run(code, words, refused):
    head = (
        "def meta_grad(self, task_loss, slow, tasks):\n        r = super().meta_grad(task_loss, slow, tasks)\n        "
    )
    assert words in refused(ALGORITHM + head + code, "--algos", "fomaml,odd")


def test_a_network_with_too_many_outputs_is_found_before_any_run(refused):
    code = "def build(self, shape, size): return nn.Sequential(nn.Flatten(), nn.Linear(784, size + 1))"
    words = "backbone 'odd': outputs have the shape (2, 5, 6); they must have (2, 5, 5)"
    assert words in refused(BACKBONE + code, "--algos", "fomaml", "--backbone", "odd")


@pytest.mark.parametrize("instead", ["--report", "--list"])
@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--algos", "mamll", "Did you mean 'maml'?"),
        ("--set", "maml.proximity=3", "--set proximity: it is a setting of imaml; not of maml"),
        ("--n-way", "x", "--n-way 'x'; accepted: a whole number"),
        ("--device", "gpu", "unknown device 'gpu'"),
        ("--dataset", "omniglott", "unknown dataset 'omniglott'"),
    ],
)
def test_flags_are_read_where_nothing_is_run_too(instead, flag, value, words, tmp_path, capsys):
    make_run(tmp_path)
    assert command.main([instead, flag, value, "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert not out


def test_the_format_of_a_configuration_file_is_a_number(tmp_path, capsys):
    path = tmp_path / "c.toml"
    path.write_text("format = true\n")
    assert command.main(["--config", str(path)]) == 2
    assert "has format True" in capsys.readouterr().err
