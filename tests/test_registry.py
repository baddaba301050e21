"""Registration: duplicates refused, unknown names answered, plugin files and installed packages found."""

import subprocess
import sys

import pytest
from helpers import Something
from places import REPOSITORY

from bench.api import BenchError, MetaAlgorithm
from bench.registry import ALGORITHMS, Registry, create_algorithm, load_plugin, unknown


def test_a_name_is_registered_once():
    registry = Registry("algorithm", MetaAlgorithm)
    registry.register("mine")(Something)
    assert registry.get("mine") is Something
    with pytest.raises(BenchError, match=r"'mine' is registered twice: in .*helpers\.py and in"):
        registry.register("mine")(type("Other", (Something,), {}))


@pytest.mark.parametrize("thing", [object, lambda: None, int])
def test_only_classes_of_the_contract_register(thing):
    with pytest.raises(BenchError, match="must be a class derived from MetaAlgorithm"):
        Registry("algorithm", MetaAlgorithm).register("odd")(thing)


def test_unknown_names_get_the_accepted_ones_and_the_nearest():
    assert unknown("x", "abd", ["abc", "def"]) == "unknown x 'abd'. Did you mean 'abc'? Accepted: abc, def."
    assert unknown("x", "ABC", ["abc", "Abd"]) == "unknown x 'ABC'. Did you mean 'abc'? Accepted: abc, Abd."
    assert unknown("x", "zzz", ["abc"]) == "unknown x 'zzz'; accepted: abc."
    with pytest.raises(BenchError, match="Did you mean 'reptile'"):
        create_algorithm("reptil")
    with pytest.raises(BenchError, match=r"hyperparameter of maml 'inner_step'.*Did you mean 'inner_steps'"):
        create_algorithm("maml", inner_step=3)
    with pytest.raises(BenchError, match="'reptile': unknown inner_optimizer 'x'; accepted: sgd, momentum, adam"):
        create_algorithm("reptile", inner_optimizer="x")


def test_a_file_of_the_repository_that_is_named_as_a_plugin_is_there_already():
    path = REPOSITORY / "algorithms" / "protonet.py"
    assert load_plugin(path) is sys.modules["algorithms.protonet"]


def test_a_plugin_file_is_imported_once_however_it_is_named(tmp_path, monkeypatch):
    path = tmp_path / "counted.py"
    path.write_text("import builtins\nbuiltins.imports = getattr(builtins, 'imports', 0) + 1\n")
    monkeypatch.chdir(tmp_path)
    first = load_plugin(path)
    assert load_plugin(tmp_path / "." / "counted.py") is first
    import builtins

    assert builtins.imports == 1
    del builtins.imports


def test_an_installed_package_registers_through_its_entry_point(tmp_path):
    """A distribution is a module with metadata beside it; importlib finds both on the search path."""
    (tmp_path / "outside_algo.py").write_text(
        "from algorithms.maml import MAML\nfrom bench.registry import register_algorithm\n"
        "@register_algorithm('outside')\nclass Outside(MAML):\n    paper = 'nowhere'\n"
    )
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[metabench.algorithms]\noutside = outside_algo\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from bench.registry import *; print(algorithm_names())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'outside'" in done.stdout


def test_an_unknown_name_that_is_near_to_none_may_be_a_plugins():
    with pytest.raises(BenchError, match=r"reptile.*\. One of a plugin needs --plugin FILE\.py\.$"):
        ALGORITHMS.get("zzzzzz")
    with pytest.raises(BenchError, match=r"Did you mean 'maml'\? Accepted: .*reptile.*\.$"):
        ALGORITHMS.get("mamll")
