"""The paged kernels, launched with the arguments of production, for `attention.cases`.

The kernel of a case is ``paged_decode``, ``paged_prefill``, ``paged_combine``, ``paged_append`` or
``paged_copy``.  A storage dtype other than q's and the scaling follow after slashes:
``paged_decode/int8/head``.
"""

import torch

import fused_attention as fa
from fused_attention import tuning
from fused_attention.kernels import paged_attention, paged_cache
from fused_attention.kernels.launch import LaunchOptions
from fused_attention.ops.attention.triton_backend import variant_stack
from fused_attention.ops.paged.quantization import LARGEST

ROWS = [  # kernel, dtype, head_dim, stack
    *[("paged_decode", "bfloat16", head_dim, "causal") for head_dim in (64, 80, 128, 256)],
    ("paged_decode", "float32", 128, "causal"),
    ("paged_decode", "bfloat16", 128, "softcap+alibi+window+causal"),
    ("paged_decode", "bfloat16", 64, "past_bias+causal"),
    ("paged_decode/int8/head", "bfloat16", 128, "causal"),
    ("paged_decode/int8/token", "bfloat16", 128, "causal"),
    ("paged_decode/float8_e4m3fn/head", "bfloat16", 128, "causal"),
    *[("paged_prefill", "bfloat16", head_dim, "causal") for head_dim in (64, 128, 256)],
    ("paged_prefill", "float32", 128, "causal"),
    ("paged_prefill/float8_e4m3fn/token", "bfloat16", 128, "causal"),
    ("paged_combine", "bfloat16", 128, ""),
    ("paged_append", "bfloat16", 128, ""),
    ("paged_append/int8/token", "bfloat16", 128, ""),
    ("paged_append/float8_e4m3fn/head", "bfloat16", 128, ""),
    ("paged_copy", "bfloat16", 128, ""),
]


def multiplies(case) -> bool:
    """Whether the kernel has matrix products."""
    return case.kernel.startswith(("paged_decode", "paged_prefill"))


def launch(case, target: str) -> None:
    """Call the launcher of ``case``: 8 sequences of 4096 keys, pages of 64, 32 heads on 8."""
    kernel, _, storage = case.kernel.partition("/")
    kv_dtype, _, scaling = storage.partition("/")
    dtype = getattr(torch, case.dtype)
    kv_dtype = getattr(torch, kv_dtype) if kv_dtype else dtype
    num_seqs, queries, heads, kv_heads, pages, page_size = 8, 1, 32, 8, 64, 64
    if kernel == "paged_prefill":
        queries = 512
    tokens = num_seqs * queries

    def empty(*shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device="meta")

    q, o = (empty(tokens, heads, case.head_dim, dtype=dtype) for _ in range(2))
    kv = empty(num_seqs * pages, 2, page_size, kv_heads, case.head_dim, dtype=kv_dtype)
    if kv_dtype == torch.float8_e4m3fn and not tuning.has_e4m3(target):
        kv = kv.view(torch.uint8)
    scales = None
    if scaling:
        shape = (2, kv_heads) if scaling == "head" else kv.shape[:4]
        scales = empty(*shape)
    if kernel == "paged_append":
        k = empty(tokens, kv_heads, case.head_dim, dtype=dtype)
        slots = empty(tokens, dtype=torch.int64)
        largest = LARGEST.get(kv_dtype, 0.0)
        kv = kv.view(torch.uint8) if kv_dtype == torch.float8_e4m3fn else kv
        paged_cache.append(k, k, kv, slots, scales, largest, tuning.APPEND_ELEMENTS)
        return
    if kernel == "paged_copy":
        paged_cache.copy_blocks(kv, empty(4, 2, dtype=torch.int64), tuning.COPY_ELEMENTS)
        return
    lse = empty(tokens, heads)
    if kernel == "paged_combine":
        partial, stats = empty(66, *o.shape), empty(66, *lse.shape, 2)
        paged_attention.paged_attention_combine(partial, stats, o, lse)
        return
    group = heads // kv_heads
    config = tuning.paged(case.head_dim, group, queries, page_size, dtype, kv.dtype, target)
    options = LaunchOptions(
        case.head_dim**-0.5, variant_stack(_variants(case.stack, heads)), config, "ieee"
    )
    one_tile = queries <= config.block_m // group
    split = kernel == "paged_decode"
    partial, stats = (empty(66, *o.shape), empty(66, *lse.shape, 2)) if split else (o[None], None)
    paged_attention.paged_attention(
        *(q, kv[:, 0], kv[:, 1], partial, lse, stats, scales),
        *(empty(num_seqs, pages, dtype=torch.int32), empty(num_seqs, dtype=torch.int32)),
        *(empty(num_seqs + 1, dtype=torch.int32), num_seqs, one_tile, options),
    )


def _variants(names: str, heads: int) -> list[fa.Variant]:
    made = {
        "causal": fa.causal(),
        "softcap": fa.softcap(30.0),
        "window": fa.sliding_window(256),
        "alibi": fa.alibi(torch.empty(heads, device="meta")),
        "past_bias": fa.past_bias(torch.empty(heads, 129, device="meta")),
    }
    return [made[name] for name in names.split("+")]
