"""Where a token stands: added to its embedding, turned into q and k, or added to the scores."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..ops.rotary.rotary import apply_rotary, rotary_tables
from ..variants import Variant, alibi, alibi_slopes, bias, past_bias
from .config import Config


class Positions(nn.Module):
    """No positions at all, and the three ways in which the others give them.

    ``at``: (seqlen,), or of ragged batches (tokens,), int64.
    """

    limit: int | None = None  # positions there are

    def embed(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """The embeddings (..., seqlen, dim) with positions."""
        return x

    def rotate(self, q: torch.Tensor, k: torch.Tensor, at: torch.Tensor):
        """Queries and keys, (batch, heads, seqlen, head_dim) or (tokens, heads, head_dim)."""
        return q, k

    def variants(self, seqlen: int) -> tuple[Variant, ...]:
        """What is added to the scores (batch, heads, seqlen, seqlen)."""
        return ()

    def paged_variants(self) -> tuple[Variant, ...]:
        """The same over a paged cache: causal, lengths unknown, no gradient."""
        return self.variants(1)


class Tables(Positions):
    """Constants that follow the model's device, never below fp32: bf16 has no angle of 1000.5."""

    def __init__(self, *tables: torch.Tensor) -> None:
        super().__init__()
        self._exact = tables  # fp64, on the CPU
        for i, table in enumerate(tables):
            self.register_buffer(f"table_{i}", table.float(), persistent=False)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        for i, exact in enumerate(self._exact):
            moved = getattr(self, f"table_{i}")
            dtype = torch.promote_types(moved.dtype, torch.float32)
            setattr(self, f"table_{i}", exact.to(moved.device, dtype))
        return self


class Learned(Positions):
    """A vector for each position (Gehring et al. 2017, arXiv 1705.03122)."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.limit = length
        self.weight = nn.Parameter(torch.empty(length, dim))

    def embed(self, x, at):
        return x + self.weight[at]


class Sinusoidal(Tables):
    """Vaswani et al. 2017, section 3.5."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__(sinusoids(length, dim))
        self.limit = length

    def embed(self, x, at):
        return x + self.table_0[at].to(x.dtype)


def sinusoids(length: int, dim: int) -> torch.Tensor:
    """(length, dim), fp64: sin(p / 10000**(2i/dim)) in column 2i, its cosine in column 2i + 1."""
    cos, sin = rotary_tables(length, dim, dtype=torch.float64, device="cpu")
    return torch.stack([sin, cos], -1).flatten(1)


class Rotary(Tables):
    """Su et al. 2021, arXiv 2104.09864; columns i and i + head_dim / 2 are a pair."""

    def __init__(self, config: Config) -> None:
        sizes, scaling = (config.max_seq_len, config.head_dim), config.rotary_scaling
        options = {"scaling": scaling, "dtype": torch.float64, "device": "cpu"}
        super().__init__(*rotary_tables(*sizes, config.rotary_base, **options))
        self.limit = config.max_seq_len

    def rotate(self, q, k, at):
        return apply_rotary(q, k, self.table_0, self.table_1, positions=at)


class Alibi(Tables):
    """Press et al. 2022, arXiv 2108.12409."""

    def __init__(self, num_heads: int) -> None:
        super().__init__(alibi_slopes(num_heads, device="cpu").double())

    def variants(self, seqlen):
        return (alibi(self.table_0),)


class T5(Positions):
    """A learned bias for each head and bucket of distances (Raffel et al. 2020, section 2.1).

    One table for all layers of a stack.  Near distances have buckets of their own, farther ones
    share them logarithmically.  Scores keep their 1 / sqrt(head_dim), which T5 leaves to the
    initial weights of the queries.
    """

    def __init__(self, config: Config, causal: bool) -> None:
        super().__init__()
        self.causal, self.max_distance = causal, config.max_distance
        self.weight = nn.Parameter(torch.empty(config.num_buckets, config.num_heads))

    def bucket(self, distance: torch.Tensor) -> torch.Tensor:
        """The bucket of ``key - query``; in a causal stack all of the future is distance 0."""
        buckets, past = len(self.weight), (-distance).clamp(min=0)
        first = torch.zeros_like(distance)
        if not self.causal:
            buckets //= 2
            first, past = torch.where(distance > 0, buckets, 0), distance.abs()
        exact = buckets // 2
        growth = (past.clamp(min=1) / exact).log() / math.log(self.max_distance / exact)
        far = exact + (growth * (buckets - exact) + 1e-4).long()  # logarithms err
        return first + torch.where(past < exact, past, far.clamp(max=buckets - 1))

    def variants(self, seqlen):
        distances = torch.arange(1 - seqlen, seqlen, device=self.weight.device)
        by_distance = self.weight[self.bucket(distances)].T  # (H, 2 seqlen - 1)
        # A row longer by one, repeated, and cut into rows without: each moves by one to the right.
        rows = F.pad(by_distance, (0, 1)).repeat(1, seqlen)[:, :-seqlen]
        return (bias(rows.view(-1, seqlen, 2 * seqlen - 1)[None, :, :, seqlen - 1 :]),)

    def paged_variants(self):
        past = torch.arange(self.max_distance + 1, device=self.weight.device)
        by_distance = self.weight.detach()[self.bucket(-past)].T.contiguous()
        return (past_bias(by_distance),)


def positions(config: Config, causal: bool) -> Positions:
    """Those of a stack of blocks, by ``config.position``."""
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
