"""Which runs belong together: settings, and the arms of each, an arm being one configuration with all its seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bench.records.columns import MODES, shift_words
from bench.records.run import Run
from bench.settings.config import OPTIONS, TUNING
from bench.system.load import NOTABLE
from bench.system.text import counted

_MACHINE = ("device", "device_name", "threads")


# What, with the seed, makes two runs of one algorithm the same experiment; its hyperparameters come on top.
_IDENTITY = (
    *("meta_batch", "meta_steps", "meta_optimizer", "meta_lr", "inner_steps", "inner_lr", "inner_optimizer"),
    *("eval_inner_steps", "train_rotation", "step_mode", *_MACHINE),
)


@dataclass(frozen=True)
class Setting:
    """What must be equal for two runs of one seed to have faced the same test tasks under the same rules."""

    dataset: str
    protocol: str
    n_way: int
    k_shot: int
    k_query: int
    backbone: str
    eval_k_query: int | None
    test_rotation: str | None
    data_sha256: str | None
    data_code: str | None = None
    results: int | None = None
    data_options: str | None = None
    test_dataset: str | None = None
    test_n_way: int | None = None
    test_k_shot: int | None = None
    test_corruption: str | None = None
    test_data_sha256: str | None = None
    test_data_code: str | None = None

    @property
    def name(self) -> str:
        """The episode in words, and what is otherwise at test."""
        return f"{self.n_way}-way {self.k_shot}-shot{self.shift}"

    @property
    def shift(self) -> str:
        """What is otherwise at test than in training, in words; empty for nothing."""
        return shift_words(self.test_dataset, self.test_n_way, self.test_k_shot, self.test_corruption)

    @property
    def data(self) -> str:
        """The data set, with options that are not its defaults: ``omniglot (split=alphabet)``."""
        return f"{self.dataset} ({self.data_options})" if self.data_options else self.dataset

    @property
    def order(self) -> tuple[object, ...]:
        """What settings are sorted by."""
        return (self.dataset, self.protocol, self.n_way, self.k_shot, self.k_query, *map(str, asdict(self).values()))


@dataclass(frozen=True)
class Arm:
    """The runs, one per seed, of one algorithm with one configuration on one device in one setting.

    ``label`` is the algorithm's name, followed by what tells it from others of that name (``x (inner_lr=0.4)``), and
    ``place`` the setting's name alike.
    """

    algo: str
    label: str
    setting: Setting
    place: str
    runs: tuple[Run, ...]

    @cached_property
    def ok(self) -> dict[int, Run]:
        """The runs whose numbers may be compared, by seed; of several with one seed, the latest."""
        return {run.row.seed: run for run in sorted(self.runs, key=lambda run: run.row.seed) if run.ok}

    @property
    def measure(self) -> str:
        """What was measured at test, ``accuracy`` or what the data set calls it."""
        return next((run.row.measure for run in self.runs if run.row.measure), "accuracy")

    @property
    def tested(self) -> dict[str, str]:
        """The columns that hold it, by test mode."""
        kind = "error" if self.values("test_error") else "acc"
        return {mode: f"test_{column.replace('acc', kind)}" for mode, column in MODES.items()}

    def values(self, column: str) -> list[float]:
        """Return a column of the ok runs, one value per seed, without those that are not known."""
        values = (getattr(run.row, column) for run in self.ok.values())
        return [float(value) for value in values if value is not None and not math.isnan(value)]

    def mean(self, column: str) -> float:
        """Return the mean over seeds, NaN if nothing is known."""
        values = self.values(column)
        return sum(values) / len(values) if values else math.nan

    def sd(self, column: str) -> float:
        """Return the standard deviation over seeds, NaN for fewer than two."""
        values = self.values(column)
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan

    def ci95(self, column: str) -> float:
        """Return the half-width over tasks of ``mean``: seeds have different tasks, so that variances add up."""
        values = self.values(f"{column}_ci95")
        return math.hypot(*values) / len(values) if values else math.nan

    @property
    def trials(self) -> int:
        """How many trials of a search its settings come from; 0 for none."""
        return self.runs[-1].row.tuning_trials or 0

    @property
    def tuning(self) -> str:
        """The same in words."""
        if not self.trials:
            return "untuned"
        whole = self.runs[-1].row.tuning_trial_steps
        return f"tuned with {counted(self.trials, 'trial')}{f' of {whole:,} meta-steps' if whole else ''}"

    @property
    def beside(self) -> int:
        """The most other runs of this harness that were under way beside one of its runs, 0 if none is known."""
        return round(max(self.values("beside"), default=0.0))

    @property
    def load(self) -> float:
        """The most cores that others used beside one of its runs; 0 where that was the machine's own life."""
        most = max(self.values("load"), default=0.0)
        return most if most >= NOTABLE else 0.0

    @property
    def disturbed(self) -> bool:
        """Whether its times were measured beside other runs or other work."""
        return bool(self.beside or self.load)


def arms(runs: Iterable[Run]) -> list[Arm]:
    """Sort runs into arms, ordered by setting, then label.

    A run that failed before it knew its device or its data joins the first arm that contradicts nothing it knows.
    """
    runs = sorted(runs, key=lambda run: (not run.ok, run.row.started_at, run.row.run_id))
    found = []
    for setting, in_setting in _grouped(runs, _setting_of):
        for algo in sorted({run.row.algo for run in in_setting}):
            same = [run for run in in_setting if run.row.algo == algo]
            found += [(Setting(**setting), algo, identity, group) for identity, group in _grouped(same, _identity)]
    labelled = [
        Arm(algo, _label(algo, identity, setting, found), setting, _place(setting, [f[0] for f in found]), tuple(group))
        for setting, algo, identity, group in found
    ]
    return sorted(labelled, key=lambda arm: (arm.setting.order, arm.label))


def budgets(arms: Iterable[Arm]) -> dict[str, list[int]]:
    """Return how many training tasks the finished runs of each arm have seen, in ascending order without repetition."""
    return {arm.label: sorted({run.row.tasks_seen or 0 for run in arm.ok.values()}) for arm in arms}


def by_setting(arms: Iterable[Arm]) -> list[tuple[Setting, list[Arm]]]:
    """Return the arms of every setting, in the order of ``arms``."""
    found: dict[Setting, list[Arm]] = {}
    for arm in arms:
        found.setdefault(arm.setting, []).append(arm)
    return list(found.items())


def _setting_of(run: Run) -> dict[str, Any]:
    known = {name: getattr(run.row, name) for name in Setting.__dataclass_fields__}
    return {**known, "results": run.row.results or 1}  # rows of the first version do not say


def _identity(run: Run) -> dict[str, Any]:
    hyperparameters = run.details.get("hyperparameters")
    chosen = hyperparameters if isinstance(hyperparameters, dict) else {}
    config = run.details.get("config")
    further = config if isinstance(config, dict) else {}
    apart = {*Setting.__dataclass_fields__, "algo", "seed", *OPTIONS, *TUNING}
    return {
        **{name: value for name, value in further.items() if name not in apart},
        **{name: getattr(run.row, name) for name in _IDENTITY},
        "tuning_trials": run.row.tuning_trials or 0,  # rows of earlier versions do not say
        **chosen,
    }


def _grouped(runs: Sequence[Run], key_of: Any) -> Iterator[tuple[dict[str, Any], list[Run]]]:
    groups: dict[str, tuple[dict[str, Any], list[Run]]] = {}
    for run in runs:
        key = key_of(run)
        text = json.dumps(key, sort_keys=True)
        if text not in groups and not run.ok:
            fits = (t for t, (other, _) in groups.items() if _agree(key, other))
            text = next(fits, text)
        groups.setdefault(text, (key, []))[1].append(run)
    yield from groups.values()


def _agree(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(a[name] == b[name] or a[name] is None or b[name] is None for name in a.keys() & b.keys())


def _differing(own: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> str:
    """Name the values in ``own`` that are not the same in all ``others``."""
    others = list(others)
    names = [name for name in own if any(other.get(name) != own[name] for other in others)]
    return ", ".join(f"{name}={_shown(name, own[name], [other.get(name) for other in others])}" for name in names)


def _shown(name: str, value: Any, beside: Sequence[Any]) -> str:
    """Return a value as labels show it: with three digits, what a search has drawn has 17, unless others have these."""
    if isinstance(value, float):
        short = f"{value:.3g}"
        taken = any(f"{other:.3g}" == short for other in beside if isinstance(other, float) and other != value)
        return str(value) if taken else short
    return str(value)[:12] if name.endswith("sha256") else str(value)


def _label(algo: str, identity: dict[str, Any], setting: Setting, found: list[tuple[Any, ...]]) -> str:
    beside = [(name, other) for place, name, other, _ in found if place == setting]
    rivals = [other for name, other in beside if name == algo]
    described = []
    if len({bool(other["tuning_trials"]) for _, other in beside}) > 1:  # no verdict on these without saying so
        described.append("tuned" if identity["tuning_trials"] else "untuned")
        rivals = [other for other in rivals if bool(other["tuning_trials"]) == bool(identity["tuning_trials"])]
    described.append(_differing({k: v for k, v in identity.items() if k not in (*_MACHINE, "step_mode")}, rivals))
    if identity["step_mode"] is not None:  # a run that failed in its first step does not know it
        described.append(
            _differing({"step_mode": identity["step_mode"]}, [r for r in rivals if r["step_mode"] is not None])
        )
    # Costs on different machines must not stand side by side unnamed, even if no algorithm was run on both.
    alike = [other for _, other in beside]
    for part in _MACHINE:
        if identity[part] is not None:  # a run that died early does not know its machine
            described.append(_differing({part: identity[part]}, [other for other in alike if other[part] is not None]))
        alike = [other for other in alike if other[part] == identity[part]]
    text = ", ".join(filter(None, described))
    return f"{algo} ({text})" if text else algo


def _place(setting: Setting, settings: Sequence[Setting]) -> str:
    near = [s for s in settings if (s.data, s.protocol, s.name) == (setting.data, setting.protocol, setting.name)]
    described = _differing(asdict(setting), map(asdict, near))
    return f"{setting.name} ({described})" if described else setting.name
