"""The example tasks of a setting, with what each arm answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from bench.analysis.arms import Arm
from bench.analysis.results import EXAMPLE_SEEDS
from bench.records.columns import MODES
from bench.training.examples import ExampleTasks


def examples(arms: Sequence[Arm]) -> dict[str, Any] | None:
    """Return the example tasks of a setting, with what each arm answers, for the first seed that most arms have."""
    found: dict[int, list[tuple[Arm, ExampleTasks]]] = {}
    for seed in sorted({seed for arm in arms for seed in arm.ok})[:EXAMPLE_SEEDS]:
        for arm in arms:
            data = arm.ok[seed].examples if seed in arm.ok else None
            try:
                kept = ExampleTasks.from_bytes(data) if data else None
            except ValueError as error:
                arm.ok[seed].warn(f"{arm.ok[seed].folder}: {error}")
                continue
            if kept is not None:
                found.setdefault(seed, []).append((arm, kept))
    if not found:
        return None
    seed = max(found, key=lambda seed: (len(found[seed]), -seed))
    first = found[seed][0][1]
    same = [pair for pair in found[seed] if np.array_equal(pair[1].query, first.query)]
    tasks = [
        {
            "support": [_picture(image) for image in first.support[t]],
            "queries": [
                {"picture": _picture(image), "label": n, "answers": [_answers(kept, t, n) for _, kept in same]}
                for n, image in enumerate(first.query[t])
            ],
        }
        for t in range(len(first.query))
    ]
    return {"seed": seed, "labels": [arm.label for arm, _ in same], "tasks": tasks}


def _answers(kept: ExampleTasks, task: int, n: int) -> list[tuple[str, int]]:
    return [(mode, int(getattr(kept, mode)[task, n])) for mode in MODES]


def _picture(image: np.ndarray) -> str:
    """Return a picture as a data URI, dark on light."""
    file = io.BytesIO()
    Image.fromarray(255 - image).save(file, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
