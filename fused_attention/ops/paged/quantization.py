"""Storage of keys and values: in a floating dtype, or in 8 bits with fp32 scales.

A stored number x means x * scale.  Scales per key head, (2, kv_heads), are chosen by the user.
Scales per token and key head, (num_blocks, 2, page_size, kv_heads), are computed by `paged_append`,
so that the largest number of every token and head becomes the largest number of the dtype.  The
dimension of size 2 is keys and values.
"""

from __future__ import annotations

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# For every dtype, the narrower dtypes whose numbers it represents exactly.
NARROWER = {torch.float32: FLOATS[:2], torch.float64: FLOATS[:3]}
# The largest number used of every 8-bit dtype; int8 is symmetric, without -128.
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


def token_scales(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The scale of every row of ``x``, (..., D) -> (...), fp32; 1 for a row of zeros."""
    scales = x.abs().amax(-1).float() / LARGEST[dtype]
    return torch.where(scales == 0, 1.0, scales)


def quantize(x: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x / scales`` rounded to the nearest number of ``dtype``, ties to even, saturating."""
    x = (x.float() / scales[..., None]).clamp(-LARGEST[dtype], LARGEST[dtype])
    return (x.round() if dtype == torch.int8 else x).to(dtype)
