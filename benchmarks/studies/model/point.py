"""A measurement of a whole model before it is made."""

from dataclasses import dataclass

from ...harness.point import SPEEDUP, TIMES, Measurement

AXES = ("provider", "task", "seq_len")
TASKS = ("train", "generate")
PROVIDERS = ("fused", "naive", "sdpa")
BASELINE, OURS = "naive", "fused"
SHAPES = {
    "gpt2-small": {"dim": 768, "num_layers": 12, "num_heads": 12, "vocab_size": 50_257},
    "gpt2-medium": {"dim": 1024, "num_layers": 24, "num_heads": 16, "vocab_size": 50_257},
    "tiny": {"dim": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 512},
}


@dataclass(frozen=True)
class ModelPoint(Measurement):
    """A training step on `batch` sequences of `seq_len` tokens, or generation after them."""

    axes = AXES
    measured_by = "studies.model.worker.measure"
    numbers = (*TIMES, "naive_ms", *SPEEDUP, "tokens_per_s", "peak_memory_bytes", "loss")

    provider: str
    task: str
    seq_len: int
    shape: str
    batch: int
    new_tokens: int
    dtype: str
    device: str
    seed: int
    repeats: int  # 0: as many as the time budget allows

    @property
    def size(self) -> int:
        return self.seq_len

    @staticmethod
    def title(row: dict) -> str:
        return f"{row['provider']} {row['task']} {row['batch']} x {row['seq_len']:,} tokens"
