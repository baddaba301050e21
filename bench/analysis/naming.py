"""What settings and arms are called where several stand side by side."""

from __future__ import annotations

from collections.abc import Iterable

from bench.analysis.arms import Arm, Setting


def heading(settings: Iterable[Setting]) -> str:
    """Name the data sets and protocols, as in ``glyphs, protocol quick``."""
    return "; ".join(dict.fromkeys(f"{s.data}, protocol {s.protocol}" for s in settings)) or "no data set"


def place(arm: Arm, among: Iterable[Arm]) -> str:
    """Name the arm's setting, with data set and protocol if ``among`` there are several."""
    setting = arm.setting
    several = len({(a.setting.data, a.setting.protocol) for a in among}) > 1
    return f"{setting.data}, {setting.protocol}: {arm.place}" if several else arm.place


def short_places(settings: Iterable[Setting]) -> dict[Setting, str]:
    """Name settings as briefly as tells them apart: where ``place`` names a backbone, by those options that differ."""
    settings = list(dict.fromkeys(settings))
    several = len({(s.data, s.protocol) for s in settings}) > 1
    found = {}
    for setting in settings:
        alike = (setting.data, setting.protocol, setting.name)
        near = [_traits(s) for s in settings if (s.data, s.protocol, s.name) == alike]
        told = [
            f"{name}={value}" if value else name
            for name, value in _traits(setting).items()
            if any(other.get(name) != value for other in near)
        ]
        name = f"{setting.data}, {setting.protocol}: {setting.name}" if several else setting.name
        found[setting] = f"{name} ({', '.join(told)})" if told else name
    return found


def _traits(setting: Setting) -> dict[str, str]:
    """Return what is known of a setting but its name, options of its backbone one by one."""
    backbone, _, options = setting.backbone.removesuffix(")").partition(" (")
    known = {
        "k_query": setting.k_query,
        "eval_k_query": setting.eval_k_query,
        "backbone": backbone,
        **dict(option.partition("=")[::2] for option in options.split(", ") if option),
        "test_rotation": setting.test_rotation,
        "data_sha256": setting.data_sha256,
        "test_data_sha256": setting.test_data_sha256,
    }
    return {name: str(value)[:12] if name.endswith("sha256") else str(value) for name, value in known.items() if value}
