"""A measurement before it is made: what to run, and the key its result is stored under."""

import hashlib
import json
from dataclasses import asdict, dataclass

MODES = ("forward", "backward", "forward+backward")
DTYPES = ("float16", "bfloat16", "float32", "float64")
ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
CURVE = ("provider", "variant", "mode")
STATUSES = ("ok", "oom", "timeout", "unsupported", "error")


@dataclass(frozen=True)
class Point:
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

    def config(self, fingerprint: dict) -> str:
        """Identifies everything but the axes of a plot: points of one config are comparable."""
        fields = {k: v for k, v in asdict(self).items() if k not in (*CURVE, "seq_len")}
        return _digest({**fields, **fingerprint})

    def key(self, fingerprint: dict) -> str:
        """Identifies this measurement on this machine with this code."""
        return _digest({**asdict(self), **fingerprint})


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
