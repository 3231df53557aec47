"""GELU and bias GELU: what `test_ops` does not test of every op.

Seen failing on: erf for tanh and the reverse, the tail computed as 1 + erf, x² overflowing in the
derivative of tanh, in the kernel and in PyTorch, contiguous results for channels-last inputs, a
gradient read in another layout than x's, partial sums of the bias gradient in the input's dtype,
the sum rounded before the activation, partial sums that include masked rows.
"""

import math

import pytest
import torch
import torch.nn.functional as F

import fused_attention as fa
from fused_attention.testing import CASES

from ...helpers.op_budget import Question, check
from ...helpers.support import FLOATS, LEGS, every_leg, name_of, poisoned, runs_triton

on_triton = pytest.mark.parametrize("device", LEGS[1:])
approximations = pytest.mark.parametrize("approximate", ["none", "tanh"])
GELU = {case.name: case for case in CASES if case.name in ("gelu", "gelu_tanh")}
U = 2.0**-24


def randn(*shape, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype)


def exact(x, approximate):
    """GELU in fp64, by formulas without cancellation for negative x."""
    x = x.double()
    if approximate == "none":
        return x * torch.special.erfc(-x / math.sqrt(2)) / 2
    return x * torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))


LAYOUTS = {
    "scalar": lambda x: x[0, 0, 0, 0],
    "one": lambda x: x[:1, :1, :1, :1],
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "permuted": lambda x: x.permute(3, 0, 2, 1),
    "column_major": lambda x: x[0, 0].mT,
    "sliced": lambda x: x[:, :, 1:3, ::2],
    "rows_apart": lambda x: x[..., :3],
    "expanded": lambda x: x[:1].expand(5, *x.shape[1:]),
    "unit_stride": lambda x: x[:, :1].transpose(0, 1),
    "no_columns": lambda x: x[..., :0],
}


@every_leg
@pytest.mark.parametrize("name", GELU)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_are_those_of_torch(device, name, layout):
    x = layout(randn(2, 3, 4, 6, device=device))
    dy = randn(*x.shape, device=device, seed=1)
    found = check(Question(GELU[name], (x,), (dy,)))["out0"]
    assert found.stride() == F.gelu(x).stride()


@on_triton
@approximations
def test_tails_are_accurate_relative_to_themselves(device, approximate):
    """For negative x the relative error is a few U times E, where the result decays as exp(-E).

    Roundings proportional to E, of U each: two in x²/2 (erf) or four in 2u (tanh), and one in exp.
    Another 16 U do not grow with E: the fitted polynomial, the quotient, approximate instructions.
    """
    x = torch.linspace(-13, -1, 4001).to(device)
    true = exact(x, approximate)
    size = x.double().square() / 2 if approximate == "none" else (true / x.double()).log().abs()
    steps = 3 if approximate == "none" else 5
    allowed = (steps * size + 16) * U + torch.finfo(torch.float32).tiny * U / true.abs()
    error = (fa.gelu(x, approximate).double() / true - 1).abs()
    normal = true.abs() > torch.finfo(torch.float32).tiny
    assert normal.sum() > 2000
    assert (error <= allowed)[normal].all()


@every_leg
@approximations
@pytest.mark.parametrize("dtype", (*FLOATS, torch.float64), ids=name_of)
def test_finite_inputs_have_finite_results(device, approximate, dtype):
    """On PyTorch operations up to half of the largest number: its exact GELU is infinite beyond."""
    most = torch.finfo(dtype).max / (1 if runs_triton(device) else 2)
    x = [most, most**0.75, most**0.5, 100.0, 33.0, 31.0, 12.0, 6.0, 0.0]
    x = torch.tensor([*x, *(-number for number in x)], dtype=dtype, device=device).requires_grad_()
    y = fa.gelu(x, approximate)
    (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
    big = x.detach().abs() > 30
    least = torch.finfo(torch.float32).tiny  # in fp64 the tails at -33 are not 0
    assert ((y - x.clamp_min(0)).abs()[big] <= least).all()
    assert ((dx - (x > 0).to(dtype)).abs()[big] <= least).all()
    assert y.isfinite().all() and dx.isfinite().all()


@every_leg
@approximations
def test_nan_stays_where_it_is(device, approximate):
    x = randn(40, device=device)
    x[7] = torch.nan
    x.requires_grad_()
    y = fa.gelu(x, approximate)
    (dx,) = torch.autograd.grad(y.nansum(), x)
    assert y.isnan().nonzero().tolist() == [[7]]
    (dx,) = torch.autograd.grad(fa.gelu(x, approximate), x, torch.ones_like(x))
    assert dx.isnan().nonzero().tolist() == [[7]]


@every_leg
def test_approximate_selects_erf_or_tanh(device):
    """erf and tanh differ by up to 5e-4; the requested one is computed, and erf is the default."""
    x = torch.linspace(-4, 4, 801).to(device)
    bias = torch.zeros(801, device=device)
    gap = (exact(x, "none") - exact(x, "tanh")).abs().max()
    assert 4e-4 < gap < 5e-4
    for approximate in ("none", "tanh"):
        for found in (
            fa.gelu(x, approximate=approximate),
            fa.bias_gelu(x, bias, approximate),
            fa.geglu(x, torch.ones_like(x), approximate),
        ):
            assert (found - exact(x, approximate)).abs().max() < gap / 100
    assert torch.equal(fa.gelu(x), fa.gelu(x, "none"))
    assert torch.equal(fa.bias_gelu(x, bias), fa.bias_gelu(x, bias, "none"))


@on_triton
@pytest.mark.parametrize("columns", [3, 1500])
def test_bias_gradient_is_summed_in_fp32(device, columns):
    """The sum runs over several programs and a partial last tile, of bf16 inputs.

    The bias is fp32, so only the sum rounds.  Its longest chain of additions has log2 of the rows
    of a tile, then one per tile of a program, then one per program; each errs by U of the terms.
    """
    from fused_attention import tuning

    rows = 9 * tuning.tile(columns).block_rows + 1
    x = randn(rows, columns, dtype=torch.bfloat16, device=device)
    bias = randn(columns, device=device, seed=1).requires_grad_()
    dy = randn(rows, columns, device=device, seed=2)
    assert tuning.reducing_programs(rows, columns, tuning.tile(columns)) > 1
    with poisoned():
        y = fa.bias_gelu(x, bias)
        (found,) = torch.autograd.grad(y, bias, dy)
    wide = bias.detach().double().requires_grad_()
    terms = x.double() + wide
    (slopes,) = torch.autograd.grad(F.gelu(terms).sum(), terms, retain_graph=True)
    (true,) = torch.autograd.grad(F.gelu(terms), wide, dy.double())
    chain = 8 + math.log2(rows) + 9
    assert y.dtype == found.dtype == torch.float32
    assert ((found - true).abs() <= chain * U * (slopes * dy).abs().sum(0)).all()


@on_triton
def test_programs_loop_over_their_share_of_the_rows(device, monkeypatch):
    """The bias gradient depends on the number of programs by rounding errors only."""
    from fused_attention import tuning

    x, bias = randn(39, 20, device=device), randn(20, device=device, seed=1).requires_grad_()
    tile = tuning.TileConfig(4, 8, 4)
    monkeypatch.setattr(tuning, "tile", lambda columns: tile)
    found = []
    for programs in (1, 2, 10):
        monkeypatch.setattr(tuning, "reducing_programs", lambda *args, n=programs: n)
        with poisoned():
            found += torch.autograd.grad(fa.bias_gelu(x, bias).sum(), bias)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-5)


@on_triton
def test_the_sum_with_the_bias_is_not_rounded(device):
    """In bf16, 2.015625 + 2^-8 rounds to 2.015625, whose GELU differs from that of the sum."""
    x = torch.full((4, 8), 2.015625, dtype=torch.bfloat16, device=device)
    bias = torch.full((8,), 2.0**-8, dtype=torch.bfloat16, device=device)
    expected = exact(x.double() + bias.double(), "none").to(torch.bfloat16)
    assert torch.equal(fa.bias_gelu(x, bias), expected)
    assert not torch.equal(F.gelu(x + bias), expected)


@every_leg
@pytest.mark.parametrize("x_dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("bias_dtype", FLOATS, ids=name_of)
def test_dtypes_are_promoted_as_torch_promotes_them(device, x_dtype, bias_dtype):
    x = randn(5, 12, dtype=x_dtype, device=device).requires_grad_()
    bias = randn(12, dtype=bias_dtype, device=device, seed=1).requires_grad_()
    y = fa.bias_gelu(x, bias)
    gradients = torch.autograd.grad(y.sum(), (x, bias))
    assert y.dtype == (x + bias).dtype
    assert [g.dtype for g in gradients] == [x_dtype, bias_dtype]
    error = (y - exact(x.double() + bias.double(), "none")).abs().max()
    roundings = 2 * 8 * torch.finfo(y.dtype).eps / 2  # of the sum and the result, both below 8
    assert error <= 1.13 * roundings  # the largest derivative of GELU


@every_leg
def test_one_dimension(device):
    x, bias = randn(7, device=device), randn(7, device=device, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(fa.bias_gelu(x, bias).sum(), bias)
    (expected,) = torch.autograd.grad(F.gelu(x + bias).sum(), bias)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("approximate", ["erf", "", None, True, 1])
def test_unknown_approximate(approximate):
    x = torch.zeros(3)
    calls = (
        lambda: fa.gelu(x, approximate),
        lambda: fa.bias_gelu(x, x, approximate),
        lambda: fa.geglu(x, x, approximate),
    )
    for call in calls:
        with pytest.raises(ValueError, match="approximate argument must be either") as raised:
            call()
        assert isinstance(raised.value, RuntimeError)
        assert repr(approximate) in str(raised.value)


WHOLE = torch.ones(3, dtype=torch.int64)
X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: fa.gelu(WHOLE), TypeError, ["input", "float32", "int64"]),
        (lambda: fa.gelu(WHOLE), NotImplementedError, ["input"]),
        (lambda: fa.gelu(torch.zeros(3, dtype=torch.complex64)), TypeError, ["complex64"]),
        (lambda: fa.gelu([1.0]), TypeError, ["input", "tensor", "list"]),
        (lambda: fa.gelu(X.to_sparse()), NotImplementedError, ["input", "sparse"]),
        (lambda: fa.bias_gelu(X, WHOLE), TypeError, ["bias", "int64"]),
        (lambda: fa.bias_gelu(X, None), TypeError, ["bias", "NoneType"]),
        (lambda: fa.bias_gelu(X, torch.zeros(2)), ValueError, ["bias", "(3,)", "(2,)"]),
        (lambda: fa.bias_gelu(X, torch.zeros(())), ValueError, ["bias", "(3,)", "()"]),
        (lambda: fa.bias_gelu(X, torch.zeros(1, 3)), ValueError, ["bias", "(3,)", "(1, 3)"]),
        (lambda: fa.bias_gelu(X[0, 0], X[0]), ValueError, ["x", "1 dimension", "scalar"]),
        (lambda: fa.bias_gelu(X, X[0].to("meta")), ValueError, ["bias", "cpu", "meta"]),
    ],
)
def test_bad_input(call, error, words):
    with pytest.raises(error) as raised:
        call()
    assert all(word in str(raised.value) for word in words), str(raised.value)
