"""What the runner hands to the process of a run: the settings of the run and where things are, as one line of JSON."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.network.model import Way
from bench.records.columns import SummaryRow
from bench.settings.config import RunConfig
from bench.system.version import __version__

_PATHS = ("out", "data_root", "log_file", "test_data_root")


@dataclass(frozen=True)
class Job:
    """A run to be made, or one to be profiled."""

    config: RunConfig
    out: Path
    data_root: Path
    plugins: tuple[Path, ...]
    command: str
    started_at: str
    launched: float
    """The runner's ``time.monotonic()``, which all processes of a machine share: set-up is counted from there."""
    presence: str = ""
    """What says on this machine that the run is under way (``bench.runs.presence``); empty where nothing can."""
    bars: bool = True
    """Whether to show progress, where there is a terminal."""
    place: str = ""
    """Which of the comparison's runs it is, as in ``[2/6]``."""
    log_file: Path | None = None
    """What gets warnings besides stderr, and how far the run is."""
    quiet: bool = False
    """Whether only warnings and errors are wanted."""
    to_come: int | None = None
    """How many runs will follow those under way; None where it is not this run that says how long all will take."""
    jobs: int = 1
    """How many runs are under way at once."""
    sharing: str = ""
    """How they share one GPU: ``mps``, or ``time-slicing`` and why; empty where each run has a device of its own."""
    stated_s: float | None = None
    """How long the protocol says that a run takes (``Protocol.run_s``)."""
    within: str = ""
    """The folder under ``out`` that holds the run with others of its kind; empty for ``out`` itself."""
    trial: int | None = None
    """Which trial of a search it is; None of a run."""
    test_data_root: Path | None = None
    """Where the test data set is; None for ``data_root``."""
    tests: tuple[Mapping[str, Any], ...] = ()
    """On what a run that has finished is tested besides: fields of RunConfig that are otherwise, for each test."""
    data_sha256: str = ""
    """Of the data that the command reads; empty where it does not say."""
    remote: bool = False
    """Whether the command is on another machine, and knows of the run what its folder holds."""
    commit: str | None = None
    """Of the harness (``Launcher.commit``)."""
    ways: Mapping[str, Way] = field(default_factory=dict)
    """By which way networks are run that the command has asked on this machine (``bench.network.build.KNOWN``)."""
    attempts: tuple[Mapping[str, Any], ...] = ()
    """Where and when a run elsewhere was begun, this time last, and how earlier attempts ended."""

    @property
    def folder(self) -> Path:
        """Return where the run leaves its files."""
        return self.out / self.within / "runs" / self.config.run_id

    @property
    def told(self) -> str:
        """Return what the run is called in messages."""
        c = self.config
        return f"{self.place} {c.algo} {c.setting} seed {c.seed} on {c.dataset}".lstrip()

    @property
    def data_roots(self) -> tuple[Path, Path]:
        """Return where the data sets of training and of test are."""
        return self.data_root, self.test_data_root or self.data_root

    @property
    def cache(self) -> Path:
        """Return where prepared images go if the data root cannot be written."""
        return self.out / "cache"

    def to_json(self) -> str:
        """Return the job as ``from_json`` takes it."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that ``to_json`` wrote."""
        values = json.loads(text)
        paths = {name: Path(values[name]) for name in _PATHS if values[name] is not None}
        config, plugins = RunConfig(**values["config"]), tuple(map(Path, values["plugins"]))
        ways = {key: Way(**way) for key, way in values["ways"].items()}
        further = {"config": config, "plugins": plugins, "ways": ways}
        further |= {name: tuple(values[name]) for name in ("tests", "attempts")}
        return cls(**{**values, **paths, **further})

    def base_row(self, status: str, error: str | None = None) -> SummaryRow:
        """Return the row of a run of which nothing is known but its configuration."""
        names = set(SummaryRow.columns())
        known = {k: v for k, v in asdict(self.config).items() if k in names}
        known |= self.config.row_cells
        return SummaryRow(
            **known, run_id=self.config.run_id, started_at=self.started_at, status=status, error=error,
            git_commit=self.commit, version=__version__, torch_version=torch.__version__, host=socket.gethostname(),
        )  # fmt: skip
