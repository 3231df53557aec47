"""Conversion to and from the 8-bit numbers of a quantized cache.

int8, where -128 is NaN, and e4m3 (a sign, four bits of exponent with bias 7, three of mantissa; no
infinity, NaN is all ones): Micikevicius et al. 2022, arXiv 2209.05433.  Not every GPU has an e4m3
type, so it is written as bytes on all, and read as bytes where the type is missing.
"""

import triton
import triton.language as tl

from .numerics import INTERPRETED, round_to

INT8_NAN = tl.constexpr(-128)


@triton.jit
def from_storage(x, dtype: tl.constexpr):
    """Stored numbers as ``dtype``, exactly; uint8 means e4m3."""
    if INTERPRETED:
        return round_to(_restored(x, tl.float32), dtype)
    else:
        return _restored(x, dtype)


@triton.jit
def _restored(x, dtype: tl.constexpr):
    if x.dtype == tl.uint8:
        return _from_e4m3(x).to(dtype)
    elif x.dtype == tl.int8:
        return tl.where(x == INT8_NAN, float("nan"), x.to(dtype))
    else:
        return x.to(dtype)


@triton.jit
def to_storage(x, dtype: tl.constexpr):
    """fp32 rounded to ``dtype``, ties to even; for 8 bits ``x`` must be within range or NaN."""
    if dtype == tl.uint8:
        return _to_e4m3(x)
    elif dtype == tl.int8:
        # Adding 1.5 * 2**23 rounds a small number to an integer, held in the last bits.
        rounded = (x + 12582912.0).to(tl.int32, bitcast=True) - 0x4B400000
        return tl.where(x == x, rounded, INT8_NAN).to(tl.int8)
    else:
        return round_to(x, dtype)


@triton.jit
def _from_e4m3(x):
    """Shift the bits into fp16, whose exponent bias is 8 larger, and multiply by 2**8."""
    bits = x.to(tl.uint16)
    half = (((bits & 0x80) << 8) | ((bits & 0x7F) << 7)).to(tl.float16, bitcast=True)
    return tl.where((bits & 0x7F) == 0x7F, float("nan"), half.to(tl.float32) * 256.0)


@triton.jit
def _to_e4m3(x):
    size = tl.abs(x)
    bits = size.to(tl.uint32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - ((127 - 7) << 3)
    # Below 2**-6, e4m3 is a multiple of 2**-9: the last place of an fp32 number near 2**14.
    below = (size + 16384.0).to(tl.uint32, bitcast=True) - 0x46800000
    code = tl.where(size < 0.015625, below, normal)
    code = tl.where(x != x, 0x7F, code)
    sign = (x.to(tl.uint32, bitcast=True) >> 24) & 0x80
    return (code | sign).to(tl.uint8)
