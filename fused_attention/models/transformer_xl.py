"""Segments that see the one before them: Transformer-XL, Dai et al. 2019, arXiv 1901.02860."""

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


class Segment:
    """What each layer knows of the segment before, and keeps of this one for the next."""

    def __init__(self, before: Sequence[torch.Tensor], length: int) -> None:
        self.before, self.length = before, length
        self.after: list[torch.Tensor] = []

    def remember(self, layer: int, x: torch.Tensor) -> None:
        """The end of what ``layer`` knew and x, detached; called by one layer after the other."""
        joined = torch.cat([self.before[layer], x], 1) if self.before else x
        self.after.append(joined[:, max(0, joined.shape[1] - self.length) :].detach())


class RelativeAttention(AttentionLayer):
    """Scores ``(q + u) k + (q + v) r[i - j]``, section 3.3: the second part enters as a bias."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__(config, layer)
        self.r = nn.Linear(config.dim, config.num_heads * config.head_dim, bias=False)
        self.u = nn.Parameter(torch.zeros(config.num_heads, 1, self.head_dim))
        self.v = nn.Parameter(torch.zeros(config.num_heads, 1, self.head_dim))

    def forward(self, x, variants, positions, memory=None, **_) -> torch.Tensor:
        context = x if memory is None else torch.cat([memory, x], 1)
        q, k, v = (t.transpose(1, 2) for t in self.project(x, context))
        rows = positions.encoding[-k.shape[2] :].to(x.dtype)  # the farthest first
        r = self.r(rows).unflatten(-1, (-1, self.head_dim)).transpose(0, 1)  # (H, keys, D)
        by_distance = (q + self.v.to(q.dtype)) @ r.mT / math.sqrt(self.head_dim)
        out = self.core(q + self.u.to(q.dtype), k, v, (bias(_shifted(by_distance)), *variants))
        return self.out(out.transpose(1, 2).flatten(-2))


def _shifted(x: torch.Tensor) -> torch.Tensor:
    """(B, H, rows, keys) by distance, the farthest first, to the same by key; appendix B.

    Row i moves left by rows - 1 - i; what enters on the right belongs to the future.
    """
    rows, keys = x.shape[2:]
    return F.pad(x, (1, 0)).reshape(*x.shape[:2], keys + 1, rows)[:, :, 1:].reshape(x.shape)


class RecurrentBlock(Block):
    """A block that attends to the stream of the segment before too, normalised as its own is."""

    attention_type = RelativeAttention

    def _layer(self, norm, layer, x, residual, options):
        if layer is not self.attention:
            return super()._layer(norm, layer, x, residual, options)
        segment = options["cache"]
        if segment.before:
            memory = segment.before[layer.layer]
            options = {**options, "memory": norm(memory)[0] if self.prenorm else memory}
        out, total = super()._layer(norm, layer, x, residual, options)
        segment.remember(layer.layer, total if self.prenorm else x)
        return out, total


class TransformerXL(TokenModel):
    """Causal language model that carries the hidden states of the last segment along.

    Args:
        config: its sizes, with ``position="xl"``; max_seq_len is that of a segment.
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
        # A row for every distance between a query and a key, the farthest first.
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
        """The last hidden states, and the memory; as for a call."""
        x = self.embed(input_ids, self.stack)
        self._check_memory(memory, x)
        segment = Segment(memory, self.memory_length)
        return self.stack(x, cache=segment), tuple(segment.after)

    def forward(self, input_ids, memory: Sequence[torch.Tensor] = ()):
        """Logits (batch, seqlen, vocab_size), and the memory for the next segment.

        Args:
            input_ids: (batch, seqlen), int64 or int32: a segment.
            memory: what the segment before returned: for each layer the stream that entered it,
                (batch, up to memory_length, dim).  No gradient flows into it.

        Raises ValueError or TypeError as `GPT` does, and for a memory that does not fit.
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
