"""How long a comparison has taken, and how long it will go on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from bench.system.console import duration


@dataclass
class Pace:
    """How long the comparison has taken, and how long it will take if the runs to come take as long as those made."""

    left: int
    jobs: int
    took: list[float] = field(default_factory=list)
    under_way: dict[int, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def start(self, number: int) -> None:
        """Note that a run is under way."""
        self.under_way[number] = time.monotonic()

    def end(self, number: int) -> None:
        """Note that a run is done, whether it was made here or not."""
        self.left -= 1
        if (began := self.under_way.pop(number, None)) is not None:
            self.took.append(time.monotonic() - began)

    def words(self, going_on: bool = True) -> str:
        """Say both, or the first alone where nothing goes on."""
        now = time.monotonic()
        text = f"{duration(now - self.began)} gone"
        if self.left and self.took and going_on:
            each = sum(self.took) / len(self.took)
            work = each * self.left - sum(min(each, now - began) for began in self.under_way.values())
            text += f", about {duration(work / min(self.jobs, self.left))} left"
        return text
