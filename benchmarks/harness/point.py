"""A measurement before it is made: what to run, and the key under which its row is stored."""

import hashlib
import json
from dataclasses import asdict
from typing import ClassVar

STATUSES = ("ok", "oom", "timeout", "unsupported", "error")
FAILURES = ("oom", "timeout", "error")
TIMES = ("time_ms", "time_ms_p20", "time_ms_p80")
SPEEDUP = ("speedup", "speedup_low", "speedup_high")


class Measurement:
    """The base class of points. A study derives a frozen dataclass, whose fields say what to run.

    axes: the fields in which the points of one run differ, and over which pictures are drawn.
    measured_by: module.function below `benchmarks`, called on the point in a process of its own.
    numbers: the columns that this returns; None in the row of a point that failed.

    The dataclass also has `size`, by which small points are measured first, and `title(row)`.
    """

    axes: ClassVar[tuple[str, ...]]
    measured_by: ClassVar[str]
    numbers: ClassVar[tuple[str, ...]]

    def config(self, fingerprint: dict) -> str:
        """Identifies everything but the axes: points of one config can be compared."""
        fields = {k: v for k, v in asdict(self).items() if k not in self.axes}
        return _digest({**fields, **fingerprint})

    def key(self, fingerprint: dict) -> str:
        """Identifies this measurement on this machine with this code."""
        return _digest({**asdict(self), **fingerprint})


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
