"""Segment-level recurrence: Transformer-XL, Dai et al. 2019, arXiv 1901.02860."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..variants import bias
from . import initialize
from .attention_layer import AttentionLayer
from .block import Block
from .config import Config
from .model import TokenModel
from .positions import Tables, sinusoids
from .stack import TransformerStack


class SegmentMemory:
    """The memory of the last segment that each layer reads, and the one it writes for the next.

    Args:
        past: for each layer (batch, up to length, dim); empty for the first segment.
        length: tokens remembered, at most.
    """

    def __init__(self, past: Sequence[torch.Tensor], length: int) -> None:
        self.past, self.length = past, length
        self.new: list[torch.Tensor] = []

    def append(self, x: torch.Tensor) -> None:
        """Remember the last tokens of the next layer's past and x, detached; layer by layer."""
        joined = torch.cat([self.past[len(self.new)], x], 1) if self.past else x
        self.new.append(joined[:, max(0, joined.shape[1] - self.length) :].detach())


class RelativeAttention(AttentionLayer):
    """Scores ``(q + u) k + (q + v) r[i - j]``, section 3.3: the second term enters as a bias."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        self.r = nn.Linear(config.dim, config.num_heads * config.head_dim, bias=False)
        self.u = nn.Parameter(torch.zeros(config.num_heads, 1, self.head_dim))
        self.v = nn.Parameter(torch.zeros(config.num_heads, 1, self.head_dim))

    def forward(self, x, variants, positions, position_ids=None, past=None) -> torch.Tensor:
        """The output (batch, seqlen, dim) of x that attends to the past and to itself.

        Args:
            x: (batch, seqlen, dim).
            variants: masks of the scores.
            positions: sinusoids of the distances, the farthest first.
            position_ids: not used, since only distances count.
            past: (batch, past_len, dim), the memory of this layer; none by default.
        """
        context = x if past is None else torch.cat([past, x], 1)
        q, k, v = (t.transpose(1, 2) for t in self.project(x, context))
        rows = positions.encoding[-k.shape[2] :].to(x.dtype)  # the farthest first
        r = self.r(rows).unflatten(-1, (-1, self.head_dim)).transpose(0, 1)  # (H, keys, D)
        by_distance = (q + self.v.to(q.dtype)) @ r.mT / math.sqrt(self.head_dim)
        out = self.core(q + self.u.to(q.dtype), k, v, (bias(_shifted(by_distance)), *variants))
        return self.out(out.transpose(1, 2).flatten(-2))


def _shifted(x: torch.Tensor) -> torch.Tensor:
    """(B, H, rows, keys) by distance, the farthest first, to the same by key; appendix B.

    Row i shifts left by rows - 1 - i; the entries that this shifts in are in the future, masked.
    """
    rows, keys = x.shape[2:]
    return F.pad(x, (1, 0)).reshape(*x.shape[:2], keys + 1, rows)[:, :, 1:].reshape(x.shape)


class RecurrentBlock(Block):
    """A block whose self-attention sees the last segment too.

    The memory is what enters the layer: of a pre-norm block the residual, normalized again with
    the current weights when it is read.
    """

    attention_type = RelativeAttention

    def _self_attention(self, x, residual, *, memory: SegmentMemory, **options):
        norm, layer = self.attention_norm, self.attention
        past = memory.past[layer.layer] if memory.past else None
        if past is not None and self.prenorm:
            past = norm(past)[0]
        out, total = self._layer(norm, layer, x, residual, {**options, "past": past})
        memory.append(total if self.prenorm else x)
        return out, total


class TransformerXL(TokenModel):
    """Causal language model whose segments attend to the hidden states of the last segment.

    Args:
        config: sizes and options, with ``position="xl"``; max_seq_len is that of a segment.
        memory_length: tokens remembered; max_seq_len by default.
        attention: "fused", "naive" or "sdpa"; see `Model`.
    """

    def __init__(
        self, config: Config, *, memory_length: int | None = None, attention: str = "fused"
    ) -> None:
        if config.position != "xl":
            raise ValueError(f"position: TransformerXL needs 'xl', got {config.position!r}")
        memory_length = config.max_seq_len if memory_length is None else memory_length
        if memory_length < 0:
            raise ValueError(f"memory_length: expected 0 or more, got {memory_length}")
        super().__init__(config)
        self.memory_length = memory_length
        # One row per distance between a query and a key, the farthest first.
        distances = Tables(
            encoding=sinusoids(config.max_seq_len + memory_length, config.dim).flip(0)
        )
        distances.max_positions = config.max_seq_len
        self.stack = TransformerStack(
            config, causal=True, positions=distances, block=RecurrentBlock
        )
        self.attention = attention
        initialize.gpt2(self)

    def hidden(self, input_ids, memory: Sequence[torch.Tensor] = ()):
        """The last hidden states, and the memory for the next segment; arguments as for a call."""
        x = self.embed(input_ids, self.stack)
        self._check_memory(memory, x)
        segment_memory = SegmentMemory(memory, self.memory_length)
        return self.stack(x, memory=segment_memory), tuple(segment_memory.new)

    def forward(self, input_ids, memory: Sequence[torch.Tensor] = ()):
        """Logits (batch, seqlen, vocab_size), and the memory for the next segment.

        Args:
            input_ids: (batch, seqlen), int64 or int32: a segment.
            memory: what the call with the last segment returned: for each layer its past inputs,
                (batch, up to memory_length, dim), detached.  Empty for the first segment.

        Raises ValueError or TypeError as for `GPT`, and ValueError for a memory that does not fit.
        """
        hidden, memory = self.hidden(input_ids, memory)
        return self.logits(hidden), memory

    def _check_memory(self, memory, x) -> None:
        layers, most, (batch, _, dim) = self.config.num_layers, self.memory_length, x.shape
        got = [tuple(part.shape) for part in memory]
        fits = all(len(s) == 3 and s[::2] == (batch, dim) and s[1] <= most for s in got)
        if got and not (fits and len(got) == layers):
            expected = f"{layers} tensors ({batch}, up to {most}, {dim}), one a layer"
            raise ValueError(f"memory: expected {expected}, got {got}")
