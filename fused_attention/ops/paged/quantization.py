"""How the cache holds keys and values: in a floating dtype, or in 8 bits and fp32 scales.

A stored number x stands for x * scale.  Scales are per key head, (2, kv_heads), chosen by the
user; or per token, (num_blocks, 2, page_size, kv_heads), chosen by `paged_append` so that the
largest number of a token's head is the largest of the dtype.  The 2 are keys and values.
"""

from __future__ import annotations

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# What holds no number that the dtype would lose.
NARROWER = {torch.float32: FLOATS[:2], torch.float64: FLOATS[:3]}
# The largest number of each 8-bit dtype that is used; int8 symmetrically.
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


def token_scales(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The scale of every row of ``x``, (..., D) -> (...), fp32; 1 for a row of zeros."""
    scales = x.abs().amax(-1).float() / LARGEST[dtype]
    return torch.where(scales == 0, 1.0, scales)


def quantize(x: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x`` / ``scales`` to the nearest number of ``dtype``, ties to even, saturating."""
    x = (x.float() / scales[..., None]).clamp(-LARGEST[dtype], LARGEST[dtype])
    return (x.round() if dtype == torch.int8 else x).to(dtype)
