"""Matrix products and rounding that mean the same on a GPU and in Triton's interpreter.

The interpreter multiplies bf16 tiles wrongly (by ten orders of magnitude, silently) and truncates
where hardware rounds to nearest.  The branches below are resolved when a kernel is compiled.
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
    """fp32 to ``dtype``, to nearest, ties to even; NaN and infinity stay."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        rounded = bits + 0x7FFF + ((bits >> 16) & 1)
        finite = (bits & 0x7F800000) != 0x7F800000
        return tl.where(finite, rounded, bits).to(tl.float32, bitcast=True).to(tl.bfloat16)
    else:
        return x.to(dtype)
