"""What a result belongs to: an edit to whatever decides an outcome is another run, and no other edit is."""

import dataclasses
import sys

import pytest
import torch

from bench.api import SPLITS
from bench.registry import ALGORITHMS, BACKBONES, DATASETS, load_built_in, load_plugin
from bench.settings.code import code_of, data_code
from bench.tasks.images import ImageSet

FILES = {
    "plugin_of_test.py": """
        from dataclasses import dataclass
        import torch
        import helper_of_test
        from base_of_test.rules import Base
        from bench.registry import register_algorithm
        @register_algorithm("edited")
        @dataclass(frozen=True)
        class Edited(Base):
            '''An algorithm.'''
            paper = "none"
            def later(self):
                import lazy_of_test
        """,
    "helper_of_test.py": "RATE = 1\n",
    "lazy_of_test.py": "RATE = 1\n",
    "base_of_test/__init__.py": "",
    "base_of_test/rules.py": """
        from . import constants
        from .more.deep import DEEP
        from algorithms.fomaml import FirstOrderMAML as Base
        """,
    "base_of_test/constants.py": "STEP = 1\n",
    "base_of_test/more/__init__.py": "",
    "base_of_test/more/deep.py": "DEEP = 1\n",
    "base_of_test/more/unused.py": "UNUSED = 1\n",
    "network_of_test.py": """
        from torch import nn
        from bench.api import Backbone
        from bench.registry import register_backbone
        from layer_of_test import Layer
        @register_backbone("edited-network")
        class Network(Backbone):
            paper = "none"
            def build(self, shape, size):
                return Layer()
        """,
    "layer_of_test.py": "from torch.nn import Identity as Layer\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Plugins with all that they import, loaded once."""
    load_built_in()
    place = tmp_path_factory.mktemp("plugins")
    for name, text in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("\n".join(line[8:] if line[:8] == " " * 8 else line for line in text.split("\n")))
    sys.path.insert(0, str(place))
    for name in ("plugin_of_test.py", "network_of_test.py"):
        load_plugin(place / name)
    yield place
    sys.path.remove(str(place))
    for registry, name in ((ALGORITHMS, "edited"), (BACKBONES, "edited-network")):
        del registry._classes[name]


def code():
    return code_of(ALGORITHMS.get("edited"), BACKBONES.get("edited-network"))


@pytest.mark.parametrize("name", [name for name in FILES if "unused" not in name])
def test_an_edit_to_what_algorithm_or_network_is_made_of_is_another_run(folder, name):
    before, text = code(), (folder / name).read_text()
    (folder / name).write_text(text + "\nEDITED = 1\n")
    after = code()
    (folder / name).write_text(text)
    assert before is not None
    assert after != before
    assert code() == before


def test_an_edit_elsewhere_renews_nothing(folder):
    before = code()
    for name in ("base_of_test/more/unused.py", "nobody_imports_it.py", "notes.txt"):
        (folder / name).write_text("# a comment\n")
    assert code() == before


def test_the_files_of_the_harness_and_of_libraries_are_not_among_them(folder):
    from bench.settings import code as module

    found = {}
    for name in ("plugin_of_test.py", "network_of_test.py"):
        cls = ALGORITHMS.get("edited") if name.startswith("plugin") else BACKBONES.get("edited-network")
        module._collect(folder / name, cls.__module__, cls.__module__, found)
    inside = {str(path.relative_to(folder)) for path in found if path.is_relative_to(folder)}
    assert inside == {name for name in FILES if "unused" not in name}
    assert {path.parent.name for path in found if not path.is_relative_to(folder)} == {"algorithms"}


def test_an_import_is_found_wherever_it_can_stand():
    from bench.settings import code as module

    text = """
import a
if a: import b
else: import c
for _ in a:
    while a: import d
    else: import e
try: import f
except OSError: import g
else: import h
finally: import i
class C:
    with a: import j
    async def k(self):
        match self:
            case 1: import k
        return [lambda: 0 for _ in ()]
"""
    assert set(module._imports(text.encode(), "")) == set("abcdefghijk")


def test_a_class_without_a_file_has_no_code():
    made = type("Nowhere", (), {"__module__": "nowhere"})
    assert code_of(made) is None


def test_another_class_in_a_split_is_other_data():
    names = tuple("abcdef")
    splits = {split: (2 * i, 2 * i + 1) for i, split in enumerate(SPLITS)}
    data = ImageSet("glyphs", torch.eye(8, dtype=torch.uint8).expand(6, 20, 8, 8), names, splits, "p", "s")
    before = data_code(data)
    swapped = {**splits, "meta_train": (0, 4), "meta_test": (1, 5)}
    assert before != data_code(dataclasses.replace(data, splits=swapped))
    assert before == data_code(dataclasses.replace(data))
    assert before != code_of(DATASETS.get("glyphs"), ImageSet)
    assert data_code(dataclasses.replace(data, name="nobody registered this")) is None
