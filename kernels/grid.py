"""The tile and the head that a program of an attention kernel computes."""

import triton
import triton.language as tl


@triton.jit
def query_tile(num_heads, seqlen_q, GROUP_SIZE: tl.constexpr, BLOCK_M: tl.constexpr):
    """start_m, off_b, off_h, off_hk and off_bh of a program over (batch, head, tile of rows).

    The last rows of a head start first: under a causal mask they see the most keys.
    """
    num_tiles = tl.cdiv(seqlen_q, BLOCK_M)
    pid = tl.program_id(0)
    start_m = (num_tiles - 1 - pid % num_tiles) * BLOCK_M
    off_bh = pid // num_tiles
    off_b = off_bh // num_heads
    off_h = off_bh % num_heads
    return start_m, off_b, off_h, off_h // GROUP_SIZE, off_bh


@triton.jit
def head_ptr(ptr, off_b, off_h, stride_b, stride_h):
    """Pointer to head ``off_h`` of sequence ``off_b``; the products are int64."""
    return ptr + off_b.to(tl.int64) * stride_b + off_h.to(tl.int64) * stride_h
