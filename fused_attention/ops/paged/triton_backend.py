"""The paged ops on Triton kernels, without waiting for the GPU."""

from __future__ import annotations

import torch

from ... import tuning
from ...kernels import paged_attention, paged_cache
from ...kernels.launch import LaunchOptions
from ...variants.base import Variant
from ..attention.triton_backend import dot_precision, variant_stack
from .quantization import LARGEST


def attention(
    q,
    kv,
    scales,
    block_table,
    seq_lens,
    cu_seqlens_q,
    variants: tuple[Variant, ...],
    scale: float,
    max_seqlen_q: int | None,
    num_splits: int | None,
):
    """Output (tokens, H, D) in the dtype of q, and LSE (tokens, H), fp32."""
    num_tokens, num_heads, head_dim = q.shape
    num_seqs, max_blocks = block_table.shape
    page_size, num_kv_heads = kv.shape[2:4]
    out, lse = q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=torch.float32)
    arch = tuning.architecture(q.device)
    if kv.dtype == torch.float8_e4m3fn and not tuning.has_e4m3(arch):
        kv = kv.view(torch.uint8)
    group = num_heads // num_kv_heads
    queries = -(-num_tokens // num_seqs) if max_seqlen_q is None else max_seqlen_q
    config = tuning.paged(head_dim, group, queries, page_size, q.dtype, kv.dtype, arch)
    tokens = config.block_m // group
    one_tile = max_seqlen_q is not None and max_seqlen_q <= tokens
    num_tiles = num_seqs if one_tile else num_tokens // tokens + num_seqs
    if num_splits is None:
        programs, keys = num_tiles * num_kv_heads, max_blocks * page_size
        num_splits = tuning.splits(programs, keys, config.block_m, q.device)
    options = LaunchOptions(scale, variant_stack(variants), config, dot_precision())
    partial, stats = out[None], None
    if num_splits > 1:
        partial = q.new_empty((num_splits, *q.shape), dtype=torch.float32)
        stats = lse.new_empty((num_splits, *lse.shape, 2))
    paged_attention.paged_attention(
        q,
        kv[:, 0],
        kv[:, 1],
        partial,
        lse,
        stats,
        scales,
        block_table,
        seq_lens,
        cu_seqlens_q,
        num_tiles,
        one_tile,
        options,
    )
    if num_splits > 1:
        paged_attention.paged_attention_combine(partial, stats, out, lse)
    return out, lse


def append(k, v, kv, slot_mapping, scales) -> None:
    """Write keys and values (tokens, K, D) into their slots of ``kv``."""
    largest = LARGEST.get(kv.dtype, 0.0)
    stored = kv.view(torch.uint8) if kv.dtype == torch.float8_e4m3fn else kv
    paged_cache.append(k, v, stored, slot_mapping, scales, largest, tuning.APPEND_ELEMENTS)


def copy_blocks(kv, pairs) -> None:
    """Copy blocks of ``kv`` to others."""
    paged_cache.copy_blocks(kv, pairs, tuning.COPY_ELEMENTS)
