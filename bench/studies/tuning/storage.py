"""Optuna, and all that is asked of it: which values a trial tries, whether it goes on, what mattered in the end.

Every study is a file of its own, which several processes may use at once. What a trial tries depends on its number and
on the trials that have ended before it, so that a search that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from bench.api import Space
from bench.records.tuning import Trial as Ended
from bench.system.locks import Lock

STUDY_FILE = "optuna.log"
HALVING = 3
"""At each rung the best third goes on."""
FIRST_RUNG = 9
"""The first rung is this part of the validations of a run, or the first of them."""
BEGINNING = 5
"""Trials before the sampler learns from earlier ones: that of the protocol's values, the others at random."""
FEWEST = 8
"""Trials without which nothing is said of importance."""
BEST_SHARE = 0.25
"""Of the trials, which importance takes for the good ones."""

_LOOK_S = 0.005  # a write takes no longer
_STOPPED, _ENDED = "stopped", "ended"  # what a trial is said to be in the file
_TOLD = ("state", "meta_steps", "seconds", "score", "score_ci95", "error", "stream_sha256")

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """The trials of one search in Optuna's file.

    Args:
        folder: of the search, where the file is or is made.
        name: of the search.
        kind: that of the measure, ``acc`` or ``error``.
        val_points: validations of a whole trial, at which it is held against the others.
    """

    def __init__(self, folder: Path, name: str, kind: str, val_points: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._storage = JournalStorage(JournalFileBackend(str(folder / STUDY_FILE), _Turn(folder)))
        self._study = optuna.create_study(
            study_name=name,
            storage=self._storage,
            load_if_exists=True,
            direction="minimize" if kind == "error" else "maximize",
            pruner=SuccessiveHalvingPruner(min_resource=max(1, val_points // FIRST_RUNG), reduction_factor=HALVING),
        )
        self._name, self._last = name, val_points

    def begin(self, values: Mapping[str, Any]) -> None:
        """Have the first trial try ``values``; once."""
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(dict(values))

    @property
    def running(self) -> list[int]:
        """Return the numbers of the trials that were begun and have not ended, whether somebody is at work or not."""
        return [t.number for t in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]

    @property
    def begun(self) -> int:
        """Return how many trials were begun."""
        return sum(t.state != TrialState.WAITING for t in self._study.get_trials(deepcopy=False))

    def ask(self) -> int:
        """Begin a trial and return its number."""
        return self._study.ask().number

    def suggest(self, number: int, spaces: Mapping[str, Space]) -> dict[str, Any]:
        """Return the values that a trial tries, decided once: asked again, they are the same."""
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            self._study.sampler = optuna.samplers.TPESampler(
                seed=zlib.crc32(f"trial {number}".encode()), n_startup_trials=BEGINNING, multivariate=True
            )
        trial = self._trial(number)
        return {name: _suggested(trial, name, space) for name, space in spaces.items()}

    def goes_on(self, number: int, points: Sequence[float]) -> bool:
        """Report the validations of a trial so far, and say whether it is to go on.

        The first trial always does: how good the protocol's own values are must be known to the end.
        """
        trial = self._trial(number)
        known = self._storage.get_trial(self._id(number))
        if _STOPPED in known.user_attrs:  # by a process that was killed before it could record that
            return False
        for step, value in enumerate(points):
            if step not in known.intermediate_values:
                trial.report(value, step)
                if step < self._last and trial.should_prune() and number:
                    trial.set_user_attr(_STOPPED, step)
                    return False
        return True

    def tell(self, number: int, ended: Ended) -> None:
        """Note how a trial ended; nothing happens where that is known."""
        if number not in self.running:
            return
        known = {name: getattr(ended, name) for name in _TOLD}
        self._trial(number).set_user_attr(_ENDED, known)  # at once: every attribute waits for the disk
        if ended.state == "complete":
            self._study.tell(number, ended.score)
        else:
            self._study.tell(number, state=TrialState.PRUNED if ended.state == "pruned" else TrialState.FAIL)

    def ended(self, first: int) -> list[Ended]:
        """Return those of the ``first`` so many trials that have ended."""
        trials = self._study.get_trials(deepcopy=False)[:first]
        return [Ended(t.number, values=dict(t.params), **t.user_attrs[_ENDED]) for t in trials if t.state.is_finished()]

    def importance(self, first: int) -> dict[str, float]:
        """Return each hyperparameter's share in what sets the good trials apart (PED-ANOVA), empty for too few trials.

        A pruned trial counts with its last validation: it was stopped for being low.
        """
        scored = [
            t for t in self._study.get_trials(deepcopy=False)[:first] if t.state.is_finished() and t.value is not None
        ]
        if len(scored) < FEWEST or len(scored[0].params) < 2:
            return {}
        study = optuna.create_study(direction=self._study.direction)
        study.add_trials(
            [optuna.create_trial(params=t.params, distributions=t.distributions, value=t.value) for t in scored]
        )
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return {name: float(share) for name, share in shares.items()} if any(shares.values()) else {}

    def _id(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(self._name)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)

    def _trial(self, number: int) -> optuna.Trial:
        return optuna.Trial(self._study, self._id(number))


class _Turn(JournalFileOpenLock):
    """The kernel's lock for Optuna's file: its own would stay for half a minute when a process is killed with it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder / STUDY_FILE))
        self._kernels = Lock(folder / f"{STUDY_FILE}.lock")

    def acquire(self) -> bool:
        """Take the lock, waiting for it."""
        while not self._kernels.take():
            time.sleep(_LOOK_S)
        return True

    def release(self) -> None:
        """Let go of the lock."""
        self._kernels.release()


def _suggested(trial: optuna.Trial, name: str, space: Space) -> Any:
    if space.choices is not None:
        return trial.suggest_categorical(name, space.choices)
    assert space.low is not None, "Space has seen to it"
    assert space.high is not None, "Space has seen to it"
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(name, space.low, space.high, log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)
