"""A measurement of an op before it is made."""

from dataclasses import dataclass

import torch

from fused_attention.testing import OpProblem

from ...harness.point import SPEEDUP, TIMES, Measurement

AXES = ("provider", "op", "mode", "rows", "hidden")


@dataclass(frozen=True)
class OpPoint(Measurement):
    """One op, on `rows` rows of `hidden` numbers."""

    axes = AXES
    measured_by = "studies.ops.worker.measure"
    numbers = (
        *(*TIMES, "torch_ms", *SPEEDUP),
        *("peak_memory_bytes", "gbytes_per_s", "tflops", "max_error_ratio"),
    )

    provider: str
    op: str
    mode: str
    rows: int
    hidden: int
    dtype: str
    device: str
    seed: int
    repeats: int  # 0: as many as the time budget allows

    @property
    def size(self) -> int:
        return self.rows * self.hidden

    @property
    def problem(self) -> OpProblem:
        return OpProblem(self.rows, self.hidden, getattr(torch, self.dtype), self.device, self.seed)

    @staticmethod
    def title(row: dict) -> str:
        return f"{row['provider']} {row['op']} {row['mode']} {row['rows']:,} x {row['hidden']:,}"
