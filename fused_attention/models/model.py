"""Base classes of all models: the attention switch, token embeddings, output projection."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..ops.checks import check_index_range, check_index_type, readable
from .backends import BACKENDS, AttentionCore
from .config import Config
from .stack import TransformerStack


class Model(nn.Module):
    """A module with a configuration, whose attention can be switched at any time.

    ``model.attention``: "fused" (`fused_attention.attention`), "naive" (`reference.attention`) or
    "sdpa" (``F.scaled_dot_product_attention``).
    """

    config_type = Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @property
    def attention(self) -> str:
        return next(m.backend for m in self.modules() if isinstance(m, AttentionCore))

    @attention.setter
    def attention(self, backend: str) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"attention: expected one of {', '.join(BACKENDS)}, got {backend!r}")
        for module in self.modules():
            if isinstance(module, AttentionCore):
                module.backend = backend


class TokenModel(Model):
    """A model of token ids: embeddings (vocab_size, dim), and the projection back to logits."""

    def __init__(self, config: Config) -> None:
        if config.vocab_size is None or config.vocab_size < 1:
            raise ValueError(f"vocab_size: expected a positive int, got {config.vocab_size}")
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        if not config.tied:
            self.output = nn.Linear(config.dim, config.vocab_size, bias=False)

    @property
    def output_weight(self) -> torch.Tensor:
        """(vocab_size, dim), of the output projection."""
        return self.embedding.weight if self.config.tied else self.output.weight

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., dim) to (..., vocab_size)."""
        return F.linear(hidden, self.output_weight)

    def embed(self, ids: torch.Tensor, stack: TransformerStack, step=None, name: str = "input_ids"):
        """Check ids, (batch, seqlen) or with a step (tokens,), and return their embeddings."""
        shape = "(batch, seqlen)" if step is None else "(tokens,)"
        check_index_type(name, ids)
        check_index_range(name, ids, self.config.vocab_size)
        if ids.ndim != (2 if step is None else 1):
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(ids.shape)}")
        if step is not None and self.attention != "fused":
            raise NotImplementedError(
                f"attention: a paged cache needs 'fused', not {self.attention!r}; "
                "or recompute without a cache"
            )
        limit, length = stack.positions.max_positions, ids.shape[-1]
        if step is not None:  # on a GPU not read, which would wait: the cache has a max_seq_len
            length = int(step.positions.max()) + 1 if readable(step.positions) else 0
        if limit is not None and length > limit:
            raise ValueError(
                f"{name}: expected at most max_seq_len = {limit} positions, got {length}"
            )
        x = self.embedding(ids)
        return x * math.sqrt(self.config.dim) if self.config.scale_embeddings else x
