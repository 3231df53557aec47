"""Hooks of attention variants called by themselves, to be compared with their twins.

    B, H      batch, query heads
    M, N      rows of q, keys; a program computes one tile of scores, or one range of bounds

The layouts are those in which other kernels call hooks: "rows" (M, N), "keys" (N, M) as in dkdv,
and "heads" as in the paged kernel, where the rows of a tile are all heads of several rows of q.
"""

import triton
import triton.language as tl

LAYOUTS = ("rows", "keys", "heads")


@triton.jit
def _probe_kernel(
    ds_ptr,
    s_in_ptr,
    s_out_ptr,
    result_ptr,
    num_heads,
    seqlen_q,
    seqlen_k,
    args,
    HOOKS: tl.constexpr,
    KIND: tl.constexpr,
    LAYOUT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    b = tl.program_id(0)
    offs_m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.minimum(tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N), seqlen_k - 1)
    if LAYOUT == "heads":
        offs_m = tl.minimum(offs_m, seqlen_q * num_heads - 1)
        h = (offs_m % num_heads)[:, None]
        row = (offs_m // num_heads)[:, None]
        kv_idx = offs_n[None, :]
    else:
        num_tiles = tl.cdiv(seqlen_q, BLOCK_M)
        h = tl.program_id(1) // num_tiles
        offs_m = tl.program_id(1) % num_tiles * BLOCK_M + tl.arange(0, BLOCK_M)
        offs_m = tl.minimum(offs_m, seqlen_q - 1)
        if LAYOUT == "rows":
            row = offs_m[:, None]
            kv_idx = offs_n[None, :]
        else:
            row = offs_m[None, :]
            kv_idx = offs_n[:, None]
    here = ((b * num_heads + h) * seqlen_q + row) * seqlen_k + kv_idx
    at = (b, h, row + seqlen_k - seqlen_q, kv_idx, seqlen_q, seqlen_k)
    if KIND == "mask":
        result = HOOKS[0](*at, args[0])
    elif KIND == "score":
        result = HOOKS[0](tl.load(s_in_ptr + here), *at, args[0])
    elif KIND == "score_grad":
        ds = tl.load(ds_ptr + here)
        s_out = tl.load(s_out_ptr + here)
        result = HOOKS[0](ds, tl.load(s_in_ptr + here), s_out, *at, args[0])
    else:
        result = HOOKS[0](tl.load(ds_ptr + here), tl.load(s_in_ptr + here), *at, args[0])
    tl.store(result_ptr + here, result)


@triton.jit
def _bounds_kernel(
    ranges_ptr, result_ptr, num_heads, seqlen_q, seqlen_k, args, HOOKS: tl.constexpr
):
    """Program (b, h, i) stores the bounds of range i, int64; the range is (first, last), int32."""
    b = tl.program_id(0)
    h = tl.program_id(1)
    i = tl.program_id(2)
    first = tl.load(ranges_ptr + 2 * i)
    last = tl.load(ranges_ptr + 2 * i + 1)
    lo, hi, full_lo, full_hi = HOOKS[0](b, h, first, last, seqlen_q, seqlen_k, args[0])
    result_ptr += ((b * num_heads + h) * tl.num_programs(2) + i) * 4
    tl.store(result_ptr, lo)
    tl.store(result_ptr + 1, hi)
    tl.store(result_ptr + 2, full_lo)
    tl.store(result_ptr + 3, full_hi)


def probe(kind: str, hook, args, operands, result, layout: str, block: int = 64) -> None:
    """Fill ``result`` (B, H, M, N), fp32, with what a hook returns for every score; a mask as 0, 1.

    ``kind``: "mask", "score", "score_grad" or "arg_grad".  ``operands``: ds, s_in and s_out,
    (B, H, M, N), fp32, or None where the hook takes none.  ``args``: the hook's last argument.
    """
    batch, num_heads, seqlen_q, seqlen_k = result.shape
    if layout == "heads":
        tiles = triton.cdiv(seqlen_q * num_heads, block)
    else:
        tiles = triton.cdiv(seqlen_q, block) * num_heads
    _probe_kernel[(batch, tiles, triton.cdiv(seqlen_k, block))](
        *(*operands, result, num_heads, seqlen_q, seqlen_k, (args,)),
        HOOKS=(hook,),
        KIND=kind,
        LAYOUT=layout,
        BLOCK_M=block,
        BLOCK_N=block,
    )


def probe_bounds(hook, args, ranges, result, seqlen_q: int, seqlen_k: int) -> None:
    """Fill ``result`` (B, H, R, 4), int64, with the bounds of ``ranges`` (R, 2), int32."""
    _bounds_kernel[result.shape[:3]](
        *(ranges, result, result.shape[1], seqlen_q, seqlen_k, (args,)), HOOKS=(hook,)
    )
