"""Generated bad input: one clear line and status 2 before anything is done, or runs that can be done.

``BENCH_FUZZ=2000 pytest -n 0 tests/cli/test_fuzz.py`` tries as many of each kind, drawn anew each time.
"""

import dataclasses
import hashlib
import io
import os
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from made_runs import make_run
from PIL import Image
from places import TOY

from bench.api import BenchError, DataError
from bench.cli import command
from bench.cli import compare as comparison
from bench.cli.flags import parser
from bench.records.run import load_runs
from bench.registry import load_plugin
from bench.settings.config import RunConfig
from bench.tasks.imagecache import cached, prepare
from bench.training.checkpoint import read_checkpoint, seal, write_checkpoint
from bench.training.examples import ExampleTasks
from datasets.omniglot_files import Half, read
from datasets.omniglot_search import listed

EXAMPLES = int(os.environ.get("BENCH_FUZZ", "0"))
FUZZ = settings(
    max_examples=EXAMPLES or 150,
    derandomize=not EXAMPLES,  # in CI the same cases at every run
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
BASE = ["--plugin", str(TOY), "--dataset", "toy", "--backbone", "one-layer", "--device", "cpu", "--algos", "maml"]


class Reached(Exception):
    """The command would now run these configurations."""


def options():
    """Every flag that takes a value, but those that choose where files are."""
    actions = [a for a in parser()._actions if a.dest not in ("out", "data_root", "dataset", "log_file")]
    return sorted(
        a.option_strings[-1]
        for a in actions
        if a.nargs is None and a.dest not in ("out", "data_root", "dataset", "log_file")
    )


NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.integers(-3, 30)).map(str)
WORDS = """maml reptile fomaml mamll conv4 mlp one-layer quick paper pap cost cpu cuda auto none None adam sgd linear
    true bf16 tf32 pooled inner_lr=0.1 maml.inner_lr=nan inner_steps=0 maml.=1 .x=1 =1 = filters=3 filters=-1 seed=3
    algo=x device=cpu reptile.inner_lr=1 inner_steps=1,2 n_way=5,6 ../x /dev/null . ~nosuch/x 1,2 1,,2 , 1e400"""
NAMES = st.sampled_from(WORDS.split())
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=()), max_size=12)
VALUES = st.one_of(NUMBERS, NAMES, TEXT)
PAIRS = st.tuples(st.sampled_from(options()), VALUES)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    load_plugin(TOY)
    return tmp_path_factory.mktemp("fuzz") / "out"


@pytest.mark.uncounted
@FUZZ
@given(st.lists(PAIRS, min_size=1, max_size=3), st.lists(TEXT.map(lambda text: "--" + text), max_size=1))
@example([("--set", "maml.inner_lr=1e400")], [])
@example([("--algos", "maml\nx")], [])
@example([("--study", "cost"), ("--vary", "inner_steps=1,x")], [])
def test_any_flags_give_one_line_or_runs_that_can_be_done(out, pairs, further):
    with pytest.MonkeyPatch.context() as patch:

        def reached(configs, *args, **kwargs):
            raise Reached(configs)

        patch.setattr(comparison, "run_all", reached)
        patch.setattr(comparison, "warn_if_busy", lambda *given: None)
        lines = Lines()
        patch.setattr(sys, "stderr", lines)
        patch.setattr(sys, "stdout", Lines())
        argv = [*BASE, "--out", str(out), *(word for pair in pairs for word in pair), *further]
        try:
            status = command.main(argv)
        except SystemExit as end:  # argparse
            status = end.code
            event("argparse")
        except Reached as end:
            (configs,) = end.args
            event("runs")
            assert configs
            assert all(isinstance(c, RunConfig) for c in configs)
            assert len({c.run_id for c in configs}) == len(configs)
            return
        if status == 0:
            assert {"--help", "--list", "-h"} & set(further)
            return
        event("one line")
        assert status == 2
        assert lines.text.endswith("\n")
        (line,) = lines.text[:-1].split("\n")
        assert line.startswith("run_bench.py: ")
        assert len(line) > len("run_bench.py: ")
        assert "Traceback" not in line
        assert not (out / "runs").exists()


MUTATIONS = st.tuples(
    st.sampled_from(["flip", "cut", "insert"]), st.floats(0, 1, exclude_max=True), st.integers(0, 255)
)


def mutated(data, mutation):
    kind, place, byte = mutation
    at = int(place * len(data))
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + bytes([byte]) + data[at:]
    return data[:at] + bytes([data[at] ^ (1 << byte % 8)]) + data[at + 1 :]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    out = tmp_path_factory.mktemp("recorded")
    make_run(out, run_id="a", tasks=4)
    return out, {path: path.read_bytes() for path in (out / "runs" / "a").iterdir()}


def contents(run):
    """Row and tables as text, in which an unknown number equals another one."""
    tables = (map(repr, run.curve), map(repr, run.adaptation), map(repr, run.test_tasks.to_numpy().tolist()))
    return [repr(run.row), *("\n".join(lines) for lines in tables)]


@FUZZ
@given(st.sampled_from(["run.json", "curve.csv", "test_tasks.csv", "adaptation.csv"]), MUTATIONS)
def test_any_damage_to_a_record_costs_what_was_hit_and_changes_no_number(recorded, name, mutation):
    out, files = recorded
    for path, data in files.items():
        path.write_bytes(data)
    (whole,) = load_runs(out)
    expected = contents(whole)
    path = out / "runs" / "a" / name
    path.write_bytes(mutated(files[path], mutation))
    warnings = []
    runs = load_runs(out, warnings.append)
    found = [contents(run) for run in runs]
    event(f"{name}: {'noticed' if warnings else 'harmless'}")
    assert all("\n" not in line for line in warnings)
    if not warnings:
        assert found == [expected]
    elif name == "run.json":
        assert found == []
    else:
        parts = ("row", "curve.csv", "adaptation.csv", "test_tasks.csv")
        hit = parts.index(name)
        assert [text for i, text in enumerate(found[0]) if i != hit] == [t for i, t in enumerate(expected) if i != hit]
        assert found[0][hit] == ""


DRAWN = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 8, 8), dtype=np.uint8)
EXAMPLE_TASKS = ExampleTasks(*DRAWN, *np.tile(np.arange(5, dtype=np.uint16), (2, 3, 1)))


@FUZZ
@given(MUTATIONS)
@pytest.mark.filterwarnings("ignore")  # zipfile's, of names that are there twice
def test_any_damage_to_example_tasks_is_refused_in_one_line_or_changes_nothing(mutation):
    """As in a record without hashes, of an earlier version, or one that was made up."""
    data = mutated(EXAMPLE_TASKS.to_bytes(), mutation)
    found, line = said_of(lambda: ExampleTasks.from_bytes(data), ValueError)
    assert found.to_bytes() == EXAMPLE_TASKS.to_bytes() if line is None else line


STATE = {
    "run_id": "maml-x",
    "slow": {"w": torch.arange(24.0).view(2, 3, 4)},
    "counters": {"meta_step": 7, "step_ms": [1.5, 2.25], "oom": None},
}


@FUZZ
@given(MUTATIONS)
def test_any_damage_to_a_checkpoint_is_refused_in_one_line_or_changes_nothing(out, mutation):
    path = out.parent / "checkpoint.pt"
    write_checkpoint(path, STATE)
    path.write_bytes(mutated(path.read_bytes(), mutation))
    found, line = said_of(lambda: read_checkpoint(path), ValueError)
    assert seal(found) == seal(STATE) if line is None else line


@FUZZ
@given(MUTATIONS)
def test_any_damage_to_a_cache_has_the_images_prepared_anew_or_changes_nothing(out, mutation):
    folder = out.parent / "cache"
    made = prepare(np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4), ["first", "second"])
    cached("toy", "steps", (folder,), lambda: made)
    (path,) = folder.iterdir()
    path.write_bytes(mutated(path.read_bytes(), mutation))
    anew = []
    found = cached("toy", "steps", (folder,), lambda: anew.append(1) or made)
    event("prepared anew" if anew else "harmless")
    assert (found.sha256, found.class_names) == (made.sha256, made.class_names)
    assert np.array_equal(found.images, made.images)
    assert list(folder.iterdir()) == [path]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A miniature of one half of Omniglot: an archive of two characters, and what must come out of it."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("archive") / "images_background.zip"
    drawn, files = [], {}
    for character in range(2):
        for drawer in range(1, 21):
            pixels = rng.random((105, 105)) > 1 / 3
            drawn.append(pixels)
            buffer = io.BytesIO()
            Image.fromarray(np.where(pixels, 255, 0).astype(np.uint8)).convert("1", dither=0).save(buffer, "PNG")
            files[f"images_background/Greek/character{character:02}/{character:04}_{drawer:02}.png"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    pixels = np.stack(drawn)
    half = Half("images_background", 2, hashlib.sha256(pixels.astype(np.uint8).tobytes()).hexdigest())
    return path, half, path.read_bytes(), pixels.astype(np.uint8).reshape(2, 20, 105, 105)


@FUZZ
@given(MUTATIONS, st.booleans())
@pytest.mark.filterwarnings("ignore")  # zipfile's, of names that are there twice
def test_any_damage_to_an_archive_is_one_line_or_changes_no_pixel(archive, mutation, at_its_end):
    """Half of it hits the directory at the archive's end, which says what there is."""
    path, half, whole, pixels = archive
    kept = len(whole) - 4500 if at_its_end else 0
    path.write_bytes(whole[:kept] + mutated(whole[kept:], mutation))
    found, line = said_of(
        lambda: read(listed(path, half, path.parent), half, lambda picture: picture.astype(np.uint8)), DataError
    )
    if line is None:
        assert found[1] == ["Greek/character00", "Greek/character01"]
        assert np.array_equal(found[0], pixels)
    else:
        assert str(path) in line
    assert list(path.parent.iterdir()) == [path]


NAMED = (
    "algo",
    "hyperparameters",
    "backbone_options",
    "dataset_options",
    "test_dataset_options",
)  # whose names are held against what is registered before
SETTINGS = [f.name for f in dataclasses.fields(RunConfig) if f.name not in NAMED]
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    NAMES,
    TEXT,
    st.lists(st.integers(), max_size=2),
)


@FUZZ
@given(st.dictionaries(st.sampled_from(SETTINGS), ANYTHING, max_size=4), st.dictionaries(NAMES, ANYTHING, max_size=2))
def test_any_configuration_is_refused_in_one_line_or_is_a_run_with_a_name(out, values, hyperparameters):
    """As they may come from a protocol or a job, types and all."""
    made = {"algo": "maml", **values, "hyperparameters": hyperparameters}
    config, line = said_of(lambda: RunConfig(**made), BenchError)
    assert config.run_id if line is None else line


def said_of(work, error):
    """Return what ``work`` returns and None, or None and the one line of the ``error`` that it raises."""
    try:
        found = work()
    except error as problem:
        event("one line")
        line = str(problem)
        assert len(line.split("\n")) == 1
        return None, line
    event("harmless")
    return found, None


class Lines:
    """A stream that keeps what is written and is no terminal; like a real one it takes no lone surrogates."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        text.encode("utf-8", "backslashreplace")
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return False
