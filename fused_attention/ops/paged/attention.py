"""Attention over a paged KV cache: the public function and its registered operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import torch

from ... import tuning
from ...variants.base import Shape, Variant, as_variants, decode, encode
from ...variants.causal import causal
from .. import backend
from ..attention import sinks
from ..checks import check_scale
from ..layout import accumulator
from ..registration import define
from . import checks
from .quantization import FLOATS

_CAUSAL = (causal(),)


def paged_attention(
    q: torch.Tensor,
    kv: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    variants: Variant | Sequence[Variant] = _CAUSAL,
    *,
    scale: float | None = None,
    scales: torch.Tensor | None = None,
    max_seqlen_q: int | None = None,
    num_splits: int | None = None,
    return_lse: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention of packed sequences of queries over a paged KV cache.

    The same function computes decoding (one query per sequence), chunked prefill and speculative
    decoding (several): the queries of a sequence are its last tokens, whose keys must be in the
    cache already.  Causal by default.  PagedAttention (Kwon et al. 2023, arXiv 2309.06180), with
    the keys split among programs as in Flash-Decoding (Dao et al. 2023).

    Args:
        q: (tokens, heads, head_dim), packed sequences; fp16, bf16, fp32 or fp64; any strides with
            a contiguous last dimension.
        kv: (num_blocks, 2, page_size, kv_heads, head_dim), keys and values of one layer, in the
            dtype of q or a narrower one, or int8 or float8_e4m3fn with ``scales``.  kv_heads
            divides heads, page_size is a multiple of 16 (on a GPU, 64 and up are fastest).
        block_table: (num_seqs, max_blocks), int32: the block of each page.  Entries after a
            sequence's last page are not read, and slots after its last key have no effect.
        seq_lens: (num_seqs,), int32: the number of keys of each sequence, new ones included.
        cu_seqlens_q: (num_seqs + 1,), int32: the index at which the queries of each sequence
            begin, and ``tokens`` at the end.  A sequence may have no queries.
        variants: as in `attention`; ``b`` is the sequence, and positions count from its start.
            A tensor argument with an entry per key position needs max_blocks * page_size entries.
        scale: of the scores; 1 / sqrt(head_dim) by default.
        scales: of 8-bit storage, as in `paged_append`.
        max_seqlen_q: the most queries of one sequence, or an upper bound; saves a search on a GPU.
        num_splits: the number of programs, 1 to 128, that share the keys of a sequence on a GPU;
            by default chosen from the shapes.  It affects the rounding of the result only.
        return_lse: also return the log-sum-exp of the scores.

    Returns:
        (tokens, heads, head_dim) in the dtype of q; with ``return_lse`` also the natural-log LSE,
        (tokens, heads), fp32 (fp64 for fp64).  A query that sees no key has output 0, LSE -inf.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or range; on the CPU
            also blocks outside the pool, lengths beyond the block table, and cu_seqlens_q or
            max_seqlen_q that contradict q or each other.  On a GPU these values are not read back:
            check them on the host.
        NotImplementedError: q, kv or an argument of a variant requires a gradient; the op has none.
    """
    variants = as_variants(variants)
    check_scale(scale)
    checks.check_storage(kv, scales)
    _check_queries(q, kv)
    _check_metadata(q.shape[0], kv, block_table, seq_lens, cu_seqlens_q)
    _check_count("max_seqlen_q", max_seqlen_q, None)
    _check_count("num_splits", num_splits, tuning.MAX_SPLITS)
    _check_variants(q, kv, block_table, variants, max_seqlen_q)
    checks.check_no_gradient("paged_attention", q=q, kv=kv)
    scale = 1 / math.sqrt(q.shape[2]) if scale is None else float(scale)
    variants, extra = sinks.split_off(variants)
    results = _paged_attention(
        q.detach(),
        kv,
        scales,
        block_table,
        seq_lens,
        cu_seqlens_q,
        *encode(variants),
        scale,
        max_seqlen_q,
        num_splits,
    )
    out, lse = sinks.apply(*results, extra, heads_at=1)
    return (out, lse) if return_lse else out


def _check_queries(q, kv) -> None:
    checks.check_tensor("q", q, FLOATS, "(tokens, heads, head_dim)", kv)
    checks.check_fits("q", q, kv)
    heads, kv_heads = q.shape[1], kv.shape[3]
    if heads != kv_heads and (kv_heads == 0 or heads % kv_heads):
        raise ValueError(f"kv: expected a number of heads that divides q's {heads}, got {kv_heads}")


def _check_metadata(num_tokens, kv, block_table, seq_lens, cu_seqlens_q) -> None:
    integers = (torch.int32,)
    checks.check_tensor("block_table", block_table, integers, "(num_seqs, max_blocks)", kv)
    checks.check_contiguous("block_table", block_table)
    num_seqs = block_table.shape[0]
    for name, x, length in (
        ("seq_lens", seq_lens, num_seqs),
        ("cu_seqlens_q", cu_seqlens_q, num_seqs + 1),
    ):
        checks.check_tensor(name, x, integers, "(n,)", kv)
        if x.shape[0] != length:
            raise ValueError(
                f"{name}: expected shape ({length},) beside {num_seqs} rows of block_table, "
                f"got {tuple(x.shape)}"
            )
        checks.check_contiguous(name, x)
    if num_seqs == 0 and num_tokens > 0:
        raise ValueError(f"block_table: expected rows for {num_tokens} tokens of q, got none")


def _check_count(name: str, count, most: int | None) -> None:
    if count is None:
        return
    if isinstance(count, bool) or not isinstance(count, (Integral, torch.SymInt)):
        raise TypeError(f"{name}: expected an int or None, got {type(count).__name__}")
    if count < 1 or (most is not None and count > most):
        span = "a positive int" if most is None else f"an int from 1 to {most}"
        raise ValueError(f"{name}: expected {span} or None, got {count}")


def _check_variants(q, kv, block_table, variants, max_seqlen_q) -> None:
    """Check the arguments of the variants against the largest batch that the shapes allow."""
    num_seqs, max_blocks = block_table.shape
    rows = q.shape[0] if max_seqlen_q is None else max_seqlen_q
    shape = Shape(num_seqs, q.shape[1], rows, max_blocks * kv.shape[2], q.device)
    for variant in variants:
        if variant.type.check is not None:
            variant.type.check(variant.args, shape)
        for position, arg in enumerate(variant.args):
            name = f"argument {position} of {variant.name} in variants"
            checks.check_no_gradient("paged_attention", **{name: arg})


def _forward(
    q, kv, scales, table, seq_lens, cu_seqlens_q, spec, tensors, scalars, scale, max_q, splits
):
    if q.device.type == "cpu":
        lengths = checks.read_lengths(kv, table, seq_lens, cu_seqlens_q, q.shape[0], max_q)
        max_q = lengths.max_seqlen_q if max_q is None else max_q
    variants = decode(spec, tensors, scalars)
    return backend.of("paged", q).attention(
        q, kv, scales, table, seq_lens, cu_seqlens_q, variants, scale, max_q, splits
    )


def _forward_fake(q, *rest):
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=accumulator(q.dtype))


def _no_gradient(ctx, *grads):
    raise NotImplementedError("paged_attention: there is no gradient")


_paged_attention = define(
    "paged_attention(Tensor q, Tensor kv, Tensor? scales, Tensor block_table, Tensor seq_lens, "
    "Tensor cu_seqlens_q, str spec, Tensor[] tensors, float[] scalars, float scale, "
    "SymInt? max_seqlen_q, int? num_splits) -> (Tensor out, Tensor lse)",
    _forward,
    _forward_fake,
    autograd=_no_gradient,
)
