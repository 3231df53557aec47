"""A measurement of attention before it is made."""

from dataclasses import dataclass

from ...harness.point import TIMES, Measurement

MODES = ("forward", "backward", "forward+backward")
CURVE = ("provider", "variant", "mode")


@dataclass(frozen=True)
class AttentionPoint(Measurement):
    """One call of attention."""

    axes = (*CURVE, "seq_len")
    measured_by = "studies.attention.worker.measure"
    numbers = (*TIMES, "peak_memory_bytes", "tflops", "max_error_ratio")

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
        return self.seq_len

    @staticmethod
    def title(row: dict) -> str:
        return f"{row['provider']} {row['variant']} {row['mode']} n={row['seq_len']}"
