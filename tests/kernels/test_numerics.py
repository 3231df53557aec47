"""The numeric helpers of the kernels: rounding, matrix products, the random bits of dropout."""

import pytest
import torch
import triton
import triton.language as tl

from fused_attention import philox
from fused_attention.kernels.dropout import keep_tile
from fused_attention.kernels.numerics import dot, round_to

from ..helpers.support import LEGS

on_triton = pytest.mark.parametrize("device", LEGS[1:])
HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


@triton.jit
def _round_kernel(x_ptr, out_ptr, SIZE: tl.constexpr):
    offs = tl.arange(0, SIZE)
    rounded = round_to(tl.load(x_ptr + offs), out_ptr.dtype.element_ty)
    tl.store(out_ptr + offs, rounded)


@on_triton
@HALF
def test_rounds_to_nearest_even(device, dtype):
    """Bitwise as PyTorch rounds: ties, zeros, overflow, infinities; NaN stays NaN."""
    one = torch.tensor([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 1 - 2**-9])
    one = torch.cat([one, 1 + torch.tensor([1, 2, 3, 5]) * 2.0**-11])
    special = torch.tensor([0.0, 65519.0, 65520.0, 3.4e38, torch.inf, torch.nan, 1e-5])
    x = torch.cat([one, special, torch.randn(512 - len(one) - len(special)) * 100])
    x = torch.cat([x, -x]).to(device)
    out = torch.empty_like(x, dtype=dtype)
    _round_kernel[(1,)](x, out, SIZE=1024)
    expected = x.to(dtype)
    number = ~x.isnan()
    assert torch.equal(out.isnan(), ~number)
    assert torch.equal(out[number].view(torch.int16), expected[number].view(torch.int16))


@triton.jit
def _dot_kernel(x_ptr, y_ptr, out_ptr, SIZE: tl.constexpr):
    offs = tl.arange(0, SIZE)
    at = offs[:, None] * SIZE + offs[None, :]
    tl.store(out_ptr + at, dot(tl.load(x_ptr + at), tl.load(y_ptr + at), "ieee"))


@on_triton
@HALF
def test_products_accumulate_in_fp32(device, dtype):
    """Products of integers are exact, though their sums are not representable in fp16 or bf16."""
    x, y = (torch.randint(-16, 17, (32, 32)).to(device, dtype) for _ in range(2))
    out = torch.empty(32, 32, device=device)
    _dot_kernel[(1,)](x, y, out, SIZE=32)
    assert torch.equal(out.double(), x.double() @ y.double())


@triton.jit
def _keep_kernel(seed_ptr, out_ptr, b, h, first_row, start_n, threshold, BLOCK: tl.constexpr):
    rows, keys = tl.arange(0, BLOCK), tl.arange(0, BLOCK)
    kept = keep_tile(
        seed_ptr,
        b + 0 * tl.program_id(0),
        h + 0 * tl.program_id(0),
        (first_row + rows)[:, None],
        start_n,
        threshold,
        BLOCK,
    )
    tl.store(out_ptr + rows[:, None] * BLOCK + keys[None, :], kept.to(tl.int8))


@on_triton
@pytest.mark.parametrize("seed", [0, 1, 2**62 - 1, 123456789012345])
def test_dropout_bits_are_those_of_torch(device, seed):
    seed = torch.tensor([seed], device=device)
    b, h, first_row, start_n, p = 3, 7, 33, 64, 0.3
    out = torch.empty(32, 32, dtype=torch.int8, device=device)
    _keep_kernel[(1,)](seed, out, b, h, first_row, start_n, philox.threshold(p), BLOCK=32)
    row = torch.arange(first_row, first_row + 32, device=device)[:, None]
    key = torch.arange(start_n, start_n + 32, device=device)[None, :]
    here = (torch.full((1, 1), n, device=device) for n in (b, h))
    assert torch.equal(out.bool(), philox.keep(seed, *here, row, key, p))
