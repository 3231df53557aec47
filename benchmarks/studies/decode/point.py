"""A measurement of decoding before it is made."""

from dataclasses import dataclass

from ...harness.point import SPEEDUP, TIMES, Measurement

AXES = ("provider", "batch", "context", "page_size", "group", "kv_dtype")
KV_DTYPES = ("float16", "bfloat16", "float32", "int8", "float8_e4m3fn")


@dataclass(frozen=True)
class DecodePoint(Measurement):
    """One new token for each of `batch` sequences that hold `context` tokens each, in one layer."""

    axes = AXES
    measured_by = "studies.decode.worker.measure"
    numbers = (
        *(*TIMES, "step_ms", "tokens_per_s", "contiguous_ms", *SPEEDUP),
        *("gbytes_per_s", "peak_memory_bytes", "cache_bytes", "max_error_ratio"),
    )

    provider: str
    batch: int
    context: int
    page_size: int  # 0 where there are no pages
    group: int  # query heads on a key head
    kv_dtype: str
    heads: int
    head_dim: int
    dtype: str
    device: str
    seed: int
    repeats: int  # 0: as many as the time budget allows

    @property
    def size(self) -> int:
        return self.batch * self.context

    @property
    def kv_heads(self) -> int:
        return self.heads // self.group

    @staticmethod
    def title(row: dict) -> str:
        pages = f", pages of {row['page_size']}" if row["page_size"] else ""
        return (
            f"{row['provider']} {row['batch']} x {row['context']:,} tokens, "
            f"group {row['group']}, {row['kv_dtype']}{pages}"
        )
