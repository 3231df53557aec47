"""Positions: added to the embeddings, rotated into q and k, or added to the scores."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..ops.rotary.rotary import apply_rotary, rotary_tables
from ..variants import Variant, alibi, alibi_slopes, bias, past_bias
from .config import Config


class Positions(nn.Module):
    """No positions: each method is a way to add them, and here does nothing.

    ``position_ids``: (seqlen,), or (tokens,) of a ragged batch, int64.
    """

    max_positions: int | None = None  # None: no limit

    def embed(self, x: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """The embeddings (..., seqlen, dim) with positions."""
        return x

    def rotate(self, q: torch.Tensor, k: torch.Tensor, position_ids: torch.Tensor):
        """Queries and keys, (batch, heads, seqlen, head_dim) or (tokens, heads, head_dim)."""
        return q, k

    def variants(self, seqlen: int) -> tuple[Variant, ...]:
        """Biases of the scores (batch, heads, seqlen, seqlen)."""
        return ()

    def paged_variants(self) -> tuple[Variant, ...]:
        """The same over a paged cache: causal, of any length, without gradients."""
        return self.variants(1)


class Tables(Positions):
    """Constant tables, buffers by their names, that are fp32 or fp64 whatever the model is.

    bf16 could not tell an angle of 1000.5 from 1000, so ``model.bfloat16()`` leaves them in fp32.
    They are not in the state dict.
    """

    def __init__(self, **tables: torch.Tensor) -> None:
        super().__init__()
        self._exact = tables  # fp64, on the CPU
        for name, table in tables.items():
            self.register_buffer(name, table.float(), persistent=False)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        for name, exact in self._exact.items():
            moved = getattr(self, name)
            dtype = torch.promote_types(moved.dtype, torch.float32)
            setattr(self, name, exact.to(moved.device, dtype))
        return self


class Learned(Positions):
    """A learned vector for each position (Gehring et al. 2017, arXiv 1705.03122)."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.max_positions = length
        self.weight = nn.Parameter(torch.empty(length, dim))

    def embed(self, x, position_ids):
        return x + self.weight[position_ids]


class Sinusoidal(Tables):
    """Vaswani et al. 2017, section 3.5."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__(encoding=sinusoids(length, dim))
        self.max_positions = length

    def embed(self, x, position_ids):
        return x + self.encoding[position_ids].to(x.dtype)


def sinusoids(length: int, dim: int) -> torch.Tensor:
    """(length, dim), fp64: sin(p / 10000**(2i/dim)) in column 2i, the cosine in column 2i + 1."""
    cos, sin = rotary_tables(length, dim, dtype=torch.float64, device="cpu")
    return torch.stack([sin, cos], -1).flatten(1)


class Rotary(Tables):
    """Su et al. 2021, arXiv 2104.09864; channels i and i + head_dim / 2 rotate as a pair."""

    def __init__(self, config: Config) -> None:
        cos, sin = rotary_tables(
            config.max_seq_len,
            config.head_dim,
            config.rotary_base,
            scaling=config.rotary_scaling,
            device="cpu",
            dtype=torch.float64,
        )
        super().__init__(cos=cos, sin=sin)
        self.max_positions = config.max_seq_len

    def rotate(self, q, k, position_ids):
        return apply_rotary(q, k, self.cos, self.sin, positions=position_ids)


class Alibi(Tables):
    """Press et al. 2022, arXiv 2108.12409."""

    def __init__(self, num_heads: int) -> None:
        super().__init__(slopes=alibi_slopes(num_heads, device="cpu").double())

    def variants(self, seqlen):
        return (alibi(self.slopes),)


class T5(Positions):
    """A learned bias for each head and bucket of distances (Raffel et al. 2020, section 2.1).

    One table for all layers of a stack.  Each near distance has its own bucket; farther distances
    share buckets whose width grows logarithmically.  Scores are scaled by 1 / sqrt(head_dim),
    which T5 folds into the initial weights of the queries.
    """

    def __init__(self, config: Config, causal: bool) -> None:
        super().__init__()
        self.causal, self.max_distance = causal, config.max_distance
        self.weight = nn.Parameter(torch.empty(config.num_buckets, config.num_heads))

    def bucket(self, distance: torch.Tensor) -> torch.Tensor:
        """The bucket of ``key - query``; in a causal stack every future key has distance 0."""
        buckets, past = len(self.weight), (-distance).clamp(min=0)
        first = torch.zeros_like(distance)
        if not self.causal:
            buckets //= 2
            first, past = torch.where(distance > 0, buckets, 0), distance.abs()
        exact = buckets // 2
        growth = (past.clamp(min=1) / exact).log() / math.log(self.max_distance / exact)
        # The logarithm may round to just below a whole number: hence 1e-4.
        far = exact + (growth * (buckets - exact) + 1e-4).long()
        return first + torch.where(past < exact, past, far.clamp(max=buckets - 1))

    def variants(self, seqlen):
        distances = torch.arange(1 - seqlen, seqlen, device=self.weight.device)
        by_distance = self.weight[self.bucket(distances)].T  # (H, 2 seqlen - 1)
        # Repeating a row padded by one and cutting it into rows without the padding moves each row
        # one to the right of the row above.
        rows = F.pad(by_distance, (0, 1)).repeat(1, seqlen)[:, :-seqlen]
        return (bias(rows.view(-1, seqlen, 2 * seqlen - 1)[None, :, :, seqlen - 1 :]),)

    def paged_variants(self):
        past = torch.arange(self.max_distance + 1, device=self.weight.device)
        by_distance = self.weight.detach()[self.bucket(-past)].T.contiguous()
        return (past_bias(by_distance),)


def make_positions(config: Config, causal: bool) -> Positions:
    """The positions of a stack, by ``config.position``."""
    if config.position == "xl":
        raise ValueError("position: 'xl' is that of TransformerXL, and of nothing else")
    return {
        "learned": lambda: Learned(config.max_seq_len, config.dim),
        "sinusoidal": lambda: Sinusoidal(config.max_seq_len, config.dim),
        "rotary": lambda: Rotary(config),
        "alibi": lambda: Alibi(config.num_heads),
        "t5": lambda: T5(config, causal),
        "none": Positions,
    }[config.position]()
