"""Storage of keys and values: in a floating dtype, or in 8 bits with fp32 scales.

A stored number x means x * scale.  Scales per key head, (2, kv_heads), are chosen by the user.
Scales per token and key head, (num_blocks, 2, page_size, kv_heads), are computed by `paged_append`,
so that the largest number of every token and head becomes the largest number of the dtype.  The
dimension of size 2 is keys and values.

There is no infinity in 8 bits: NaN and infinities are stored as NaN, which in int8 is -128.  A
scale per token is NaN if one of the token's numbers in the head is, and then all are read as NaN.
"""

from __future__ import annotations

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# For every dtype, the narrower dtypes whose numbers it represents exactly.
NARROWER = {torch.float32: FLOATS[:2], torch.float64: FLOATS[:3]}
# The largest number used of every 8-bit dtype; int8 is symmetric, and -128 is NaN.
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
_INT8_NAN = -128


def token_scales(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The scale of every row of ``x``, (..., D) -> (...), fp32.

    1 for a row of zeros, NaN for a row with NaN or an infinity.
    """
    scales = x.abs().amax(-1).float() / LARGEST[dtype]
    return torch.where(scales == 0, 1.0, scales.where(scales.isfinite(), torch.nan))


def quantize(x: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x / scales`` rounded to the nearest number of ``dtype``, ties to even, saturating.

    NaN and infinities in ``x`` become NaN.
    """
    x = x.float()
    x = x.where(x.isfinite(), torch.nan) / scales.where(scales != 0, 1)[..., None]
    x = x.clamp(-LARGEST[dtype], LARGEST[dtype])
    return (x.round().nan_to_num(_INT8_NAN) if dtype == torch.int8 else x).to(dtype)


def restore_nan_(x: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """Write NaN to ``x``, which holds the numbers ``stored``, where they mean NaN."""
    # Filling takes as long as half the attention of a query, the search no time.
    if stored.dtype == torch.int8 and stored.amin() == _INT8_NAN:
        x.masked_fill_(stored == _INT8_NAN, torch.nan)
    return x
