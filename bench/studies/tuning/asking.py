"""Whether a trial elsewhere goes on, asked and answered by files in its run's folder: Optuna's file is not there.

The trial writes its validations so far, the command reads them as they come, asks the study, and sends the answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.system.files import plain, write_atomic
from bench.system.untrusted import MIB, read_regular

SCORES_FILE, ANSWER_FILE = "scores.json", "answer.json"
_LOOK_S = 0.05


class Judge(Protocol):
    """What says whether a trial goes on."""

    def goes_on(self, number: int, points: Sequence[float]) -> bool:
        """Report the validations of a trial so far, and say whether it is to go on."""


class ByFiles:
    """Asks from the trial's side.

    Args:
        folder: of the trial's run.
        check: called while the answer is waited for; may raise to stop.
    """

    def __init__(self, folder: Path, check: Callable[[], object]) -> None:
        self._folder, self._check = folder, check

    def goes_on(self, number: int, points: Sequence[float]) -> bool:
        """Report the validations so far, and wait for the answer to as many."""
        write_atomic(self._folder / SCORES_FILE, json.dumps(plain(points)))
        while (answer := _read(self._folder / ANSWER_FILE)) is None or answer.get("points") != len(points):
            self._check()
            time.sleep(_LOOK_S)
        return bool(answer["goes_on"])

    def close(self) -> None:
        """Leave no file behind."""
        for name in (SCORES_FILE, ANSWER_FILE):
            (self._folder / name).unlink(missing_ok=True)


class Asked:
    """Answers from the command's side, whenever a question has come: again where the trial was begun anew.

    Args:
        folder: of the trial's run, as it is here.
        put: sends a file to where the trial is.
    """

    def __init__(self, folder: Path, put: Callable[[str, bytes], object]) -> None:
        self._folder, self._put, self._seen = folder, put, 0

    def look(self, judge: Judge, number: int) -> None:
        """Answer what the trial asks, if it asks something new."""
        try:
            stamp = (self._folder / SCORES_FILE).stat().st_mtime_ns
        except OSError:
            return
        points = _read(self._folder / SCORES_FILE) if stamp != self._seen else None
        if not isinstance(points, list):
            return
        self._seen = stamp
        answer = {"points": len(points), "goes_on": judge.goes_on(number, [float(point) for point in points])}
        self._put(ANSWER_FILE, json.dumps(answer).encode())

    def close(self) -> None:
        """Leave no file behind, where the trial could not."""
        (self._folder / SCORES_FILE).unlink(missing_ok=True)


def _read(path: Path) -> Any:
    try:
        return json.loads(read_regular(path, MIB))
    except (OSError, ValueError):
        return None
