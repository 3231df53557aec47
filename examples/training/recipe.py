"""The hyperparameters of a run, with defaults for two cores of a laptop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fused_attention.models import Config

from .errors import Refused

LEAST = {"steps": 1, "batch": 1, "accumulate": 1, "warmup": 0, "eval_every": 1, "context": 8}


def option(default, text: str):
    """A field with its help on the command line."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """All that determines the trained model; a checkpoint of another recipe is refused."""

    bpe: int = option(0, "size of a vocabulary of byte pairs; 0: a token is a byte")
    context: int = option(256, "tokens a prediction can see")
    layers: int = option(4, "blocks")
    dim: int = option(192, "channels")
    heads: int = option(6, "attention heads")
    position: str = option("rotary", "learned, sinusoidal, rotary, alibi, t5 or none")
    attention: str = option("fused", "fused, naive or sdpa")
    dropout: float = option(0.0, "of embeddings, layers and attention weights")
    steps: int = option(1600, "updates of the weights")
    batch: int = option(8, "sequences in an update, over all processes")
    accumulate: int = option(1, "parts that a process takes its share of a batch in")
    lr: float = option(2e-3, "learning rate after the warm-up; falls to a tenth along a cosine")
    warmup: int = option(100, "steps in which the learning rate rises")
    decay: float = option(0.1, "weight decay of matrices")
    clip: float = option(1.0, "greatest norm of a gradient")
    autocast: str = option("none", "bfloat16, or none for float32")
    eval_every: int = option(200, "steps between two looks at the held-out text")
    seed: int = option(0, "of weights, batches and dropout")

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                flag = f"--{name.replace('_', '-')}"
                raise Refused(f"{flag}: expected {least} or more, got {getattr(self, name)}")
        if self.bpe and self.bpe < 257:
            raise Refused(f"--bpe: expected more than the 256 bytes, got {self.bpe}")
        if self.autocast not in ("none", "bfloat16"):
            raise Refused(f"--autocast: expected none or bfloat16, got {self.autocast!r}")

    def config(self, vocab_size: int) -> Config:
        return Config(
            vocab_size=vocab_size,
            max_seq_len=self.context,
            num_layers=self.layers,
            dim=self.dim,
            num_heads=self.heads,
            position=self.position,
            dropout=self.dropout,
            attention_dropout=self.dropout,
        )

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.55 + 0.45 * math.cos(math.pi * done))
