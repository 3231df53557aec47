"""A measurement before it is made: what to run, and the key its result is stored under."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import ClassVar

MODES = ("forward", "backward", "forward+backward")
DTYPES = ("float16", "bfloat16", "float32", "float64")
ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
CURVE = ("provider", "variant", "mode")
STATUSES = ("ok", "oom", "timeout", "unsupported", "error")


class Measurement:
    """What every kind of point shares; its fields are the dataclass's that derives from this.

    axes: the fields that tell the points of one run apart, by which its pictures are drawn.
    measured_by: module.function of this package, to be called on the point in its own process.
    numbers: what that returns beside, None where it failed.
    """

    axes: ClassVar[tuple[str, ...]]
    measured_by: ClassVar[str]
    numbers: ClassVar[tuple[str, ...]]

    def config(self, fingerprint: dict) -> str:
        """Identifies everything but the axes of a plot: points of one config are comparable."""
        fields = {k: v for k, v in asdict(self).items() if k not in self.axes}
        return _digest({**fields, **fingerprint})

    def key(self, fingerprint: dict) -> str:
        """Identifies this measurement on this machine with this code."""
        return _digest({**asdict(self), **fingerprint})


@dataclass(frozen=True)
class AttentionPoint(Measurement):
    """One call of attention."""

    axes = (*CURVE, "seq_len")
    measured_by = "studies.attention.worker.measure"
    numbers = (
        *("time_ms", "time_ms_p20", "time_ms_p80"),
        *("peak_memory_bytes", "tflops", "max_error_ratio"),
    )

    provider: str
    variant: str
    mode: str
    seq_len: int
    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    device: str
    seed: int
    repeats: int  # 0: as many as the time budget allows
    cache: str  # "cold": caches are flushed before every repeat; "warm": they are not

    @property
    def size(self) -> int:
        """Small points are measured first."""
        return self.seq_len

    @staticmethod
    def title(row: dict) -> str:
        return f"{row['provider']} {row['variant']} {row['mode']} n={row['seq_len']}"


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
