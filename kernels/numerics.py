"""Arithmetic that means the same on a GPU and in Triton's interpreter.

The interpreter silently gets arithmetic on bf16 wrong: products (by ten orders of magnitude),
rounding (it truncates, and some values that should round to 0 do not), and negation (it negates
the bits as an integer).  The branches below are resolved at compile time.
"""

import triton
import triton.language as tl
from triton import knobs

INTERPRETED = tl.constexpr(bool(knobs.runtime.interpret))


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """a @ b, accumulated in fp32."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def dot_add(a, b, acc, PRECISION: tl.constexpr):
    """acc + a @ b, accumulated in fp32."""
    if INTERPRETED:
        return acc + tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def round_to(x, dtype: tl.constexpr):
    """fp32 rounded to ``dtype``, to nearest, ties to even; NaN and infinity pass through."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        finite = (bits & 0x7F800000) != 0x7F800000
        high = tl.where(finite, rounded, bits) >> 16
        return high.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(dtype)
