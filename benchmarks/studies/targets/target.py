"""A performance target: which points it needs, its value, and whether it holds."""

import math
from dataclasses import dataclass, replace

from ...present import fits
from ..attention.point import AttentionPoint

SPEED = "speed"
TIME_EXPONENT = "time exponent"
MEMORY_EXPONENT = "memory exponent"
MEMORY_SAVING = "memory saving"
COLUMN = {TIME_EXPONENT: "time_ms", MEMORY_EXPONENT: "peak_memory_bytes"}


@dataclass(frozen=True)
class Target:
    """A threshold that `ours` must meet: one point against rivals, or an exponent over lengths.

    Speed and memory saving are ratios to the best rival that runs. Times of the same code differ
    by up to a third between processes, so narrow targets take several rounds, each with its own
    processes and inputs, and the median of the rounds counts.
    """

    measure: str
    ours: tuple[AttentionPoint, ...]
    rivals: tuple[AttentionPoint, ...] = ()
    at_least: float = -math.inf
    at_most: float = math.inf
    goal: float | None = None
    rounds: int = 1

    def points(self, number: int) -> tuple[AttentionPoint, ...]:
        """The points that round `number` measures."""
        return tuple(replace(point, seed=point.seed + number) for point in self.ours + self.rivals)

    def values(self, rows: dict[AttentionPoint, dict]) -> list[float]:
        """One value for each round in which all that it needs was measured."""
        measured = ([rows.get(p) for p in self.points(i)] for i in range(self.rounds))
        values = (
            self._value(found[: len(self.ours)], found[len(self.ours) :]) for found in measured
        )
        return [value for value in values if value is not None]

    def _value(self, ours: list[dict | None], rivals: list[dict | None]) -> float | None:
        if not all(row and row["status"] == "ok" for row in ours):
            return None
        if self.measure in COLUMN:
            column = COLUMN[self.measure]
            law = fits.fit([row["seq_len"] for row in ours], [row[column] for row in ours])
            return law and law.exponent
        column = "time_ms" if self.measure == SPEED else "peak_memory_bytes"
        theirs = [row[column] for row in rivals if row and row["status"] == "ok"]
        return min(theirs) / ours[0][column] if theirs else None

    def holds(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most
