"""Fixtures shared by all tests: seeded generators, toy data, where the real Omniglot is."""

import contextlib
import os
from pathlib import Path

import pytest

try:
    import coverage
except ImportError:  # where only the tests of a card are run
    coverage = None

# Before torch is loaded: tests are many short pieces of work, often beside other work, and none is timed.
if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
    os.environ["GOMP_SPINCOUNT"] = "300"

import torch
from commands import start_run
from pictures import small
from places import REPOSITORY, TOY

from bench.registry import DATASETS, load_plugin

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several processes get in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_ignore_collect(collection_path, config):
    """Leave files without tests of the kind alone that ``-m gpu`` asks for: a card's machine lacks what they import."""
    asked = config.option.markexpr == "gpu" and collection_path.name.startswith("test_")
    return (asked and "mark.gpu" not in collection_path.read_text()) or None


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest: at the end one process would wait for the other's."""
    long = ("whole", "runs", "studies", "training", "network", "check", "cli", "report")
    places = {REPOSITORY / "tests" / name: i for i, name in enumerate(long)}
    items.sort(key=lambda item: min((places[p] for p in item.path.parents if p in places), default=len(long)))


@pytest.fixture(autouse=True)
def _runs_are_forked(monkeypatch):
    """Have the runs of commands within this process forked from what has imported all, as those of ``commands.py``."""
    monkeypatch.setattr("bench.runs.launchers.local.prepare", lambda: None)
    monkeypatch.setattr("bench.runs.launchers.local.start_process", start_run)


@pytest.fixture(autouse=True)
def _uncounted(request):
    """Let a test marked ``uncounted`` run at full speed: what it covers, quicker tests cover too."""
    counted = coverage and coverage.Coverage.current()
    if counted is None or request.node.get_closest_marker("uncounted") is None:
        yield
        return
    counted.stop()
    yield
    counted.start()


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def omniglot_root():
    root = Path(os.environ.get("BENCH_DATA", REPOSITORY.parent / "shared" / "omniglot"))
    if not list(root.glob("**/images_background*")):
        pytest.skip(f"no Omniglot under {root}; set BENCH_DATA to the folder that holds images_background.zip")
    return root


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory):
    """A folder that all processes of this session share, for what is made once and then only read."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def prepared_glyphs(shared_root):
    """A data root with glyphs prepared."""
    root = shared_root / "glyphs"
    root.mkdir(exist_ok=True)
    DATASETS.get("glyphs")().load(root, root)
    return root


@pytest.fixture(scope="session")
def prepared_omniglot(shared_root, omniglot_root):
    """A data root with the real Omniglot prepared; the archives are links."""
    root = shared_root / "omniglot"
    root.mkdir(exist_ok=True)
    for archive in omniglot_root.glob("*.zip"):
        with contextlib.suppress(FileExistsError):
            (root / archive.name).symlink_to(archive)
    DATASETS.get("omniglot")().load(root if list(root.iterdir()) else omniglot_root, root)
    return root


@pytest.fixture(scope="session")
def toy_images():
    return load_plugin(TOY).toy_images()


@pytest.fixture
def blank_pictures(monkeypatch):
    """A report whose pictures are files of the right names: drawing them takes most of the time of one."""
    monkeypatch.setattr("bench.report.drawing.pictures.files_of", small)
