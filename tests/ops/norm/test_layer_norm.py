"""LayerNorm and RMSNorm: what `test_ops` does not test of every op.

Seen failing on: statistics in the input's dtype, no mask in the variance, the residual's gradient
dropped, a dropout mask not regenerated in backward, partial sums in half precision, variances of
tiles merged without Chan's correction, checks left out one by one.
"""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import fused_attention as fa
from fused_attention import tuning
from fused_attention.ops import backend

from ...helpers.op_calls import recorded
from ...helpers.support import FLOATS, LEGS, every_leg, name_of, poisoned, runs_triton
from ..attention.test_errors import check_refused

NORMS = {"layer_norm": (fa.layer_norm, F.layer_norm), "rms_norm": (fa.rms_norm, F.rms_norm)}
every_norm = pytest.mark.parametrize("fused, torch_norm", NORMS.values(), ids=NORMS)
# Sizes below and above the longest row that fits in a tile of the interpreter.
HIDDEN = (7, 100, 5120)
every_size = pytest.mark.parametrize("hidden", HIDDEN)


def normal(*shape, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device).to(dtype)


@every_leg
@pytest.mark.parametrize("hidden", [*HIDDEN, 40000])
@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_constant_rows_are_exactly_the_bias(device, hidden, dtype):
    """The mean of a constant row is exact, although a sum of equal numbers rounds.

    In half precision on the CPU the call is ATen's, whose mean is not exact.
    """
    x = torch.tensor([0.0, 0.1, -3.3, 1000.1], device=device).to(dtype)[:, None].expand(4, hidden)
    weight, bias = normal(2, hidden, dtype=dtype, device=device)
    expected = torch.stack([bias] * 4), torch.stack([bias] * 4)
    if dtype != torch.float32 and not runs_triton(device):
        expected = (F.layer_norm(rows, (hidden,), weight, bias) for rows in (x, x + x))
    found = (
        fa.layer_norm(x, (hidden,), weight, bias),
        fa.add_layer_norm(x, x, (hidden,), weight, bias, prenorm=False),
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@every_leg
@every_norm
@every_size
def test_nan_and_inf_stay_in_their_rows_as_torch_has_them(device, fused, torch_norm, hidden):
    x = normal(4, hidden, device=device)
    x[1, hidden // 2], x[2, 0] = math.nan, -math.inf
    found, expected = fused(x, (hidden,)), torch_norm(x, (hidden,))
    assert torch.equal(found.isnan(), expected.isnan())
    assert found[[0, 3]].isfinite().all()


@every_leg
@every_norm
@every_size
@pytest.mark.parametrize("eps", [0, 0.0], ids=["int", "float"])
def test_eps_of_zero_is_torchs(device, fused, torch_norm, hidden, eps):
    """A row without variance, or for RMSNorm of zeros, is NaN, and so is its gradient."""
    x = normal(4, hidden, device=device)
    x[1], x[2] = 2, 0
    x.requires_grad_()
    grad = normal(4, hidden, device=device, seed=1)
    found, expected = fused(x, (hidden,), eps=eps), torch_norm(x, (hidden,), eps=eps)
    torch.testing.assert_close(found, expected, equal_nan=True)
    ours, theirs = (torch.autograd.grad(y, x, grad) for y in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True)
    add = {fa.layer_norm: fa.add_layer_norm, fa.rms_norm: fa.add_rms_norm}[fused]
    normed = add(x, torch.zeros_like(x), (hidden,), eps=eps, prenorm=False)
    torch.testing.assert_close(normed, expected, equal_nan=True)
    assert expected[2].isnan().all() and expected[[0, 3]].isfinite().all()


@every_leg
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("add", [fa.add_layer_norm, fa.add_rms_norm])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_sum_has_the_dtype_of_the_residual_and_the_norm_that_of_x(device, add, dtype, weighted):
    x, residual = normal(3, 8, dtype=dtype, device=device), normal(3, 8, device=device, seed=1)
    for stream in (residual, residual.to(dtype)):
        for weight in (torch.ones(8, device=device, dtype=d) for d in (dtype, torch.float32)):
            weights = (weight,) if weighted else ()
            normed, total = add(x, stream, (8,), *weights)
            assert normed.dtype == dtype and total.dtype == stream.dtype
            assert torch.equal(total, stream + x)
            assert add(x, stream, (8,), *weights, prenorm=False).dtype == dtype


@every_leg
@every_norm
@pytest.mark.parametrize("shape", [(0, 8), (3, 0), (0, 0), (2, 0, 5)], ids=str)
def test_nothing_to_normalize(device, fused, torch_norm, shape):
    x = torch.zeros(shape, device=device, requires_grad=True)
    weight = torch.ones(shape[-1:], device=device, requires_grad=True)
    with poisoned():
        out = fused(x, shape[-1:], weight)
        dx, dweight = torch.autograd.grad(out.sum(), (x, weight))
    assert out.shape == dx.shape == shape
    assert torch.equal(dweight, torch.zeros_like(weight))


@every_leg
@every_norm
def test_several_normalized_dimensions(device, fused, torch_norm):
    x = normal(2, 3, 4, 5, device=device).transpose(0, 1).requires_grad_()
    weight = normal(4, 5, device=device).mT.contiguous().mT.requires_grad_()
    grad = normal(3, 2, 4, 5, device=device, seed=1)
    for shape in ((4, 5), [4, 5], torch.Size((4, 5))):
        found = fused(x, shape, weight)
        expected = torch_norm(x, shape, weight)
        torch.testing.assert_close(found, expected)
        ours = torch.autograd.grad(found, (x, weight), grad)
        theirs = torch.autograd.grad(expected, (x, weight), grad)
        torch.testing.assert_close(ours, theirs)


@every_leg
@every_norm
@every_size
def test_only_the_gradients_that_are_wanted(device, fused, torch_norm, hidden):
    """Gradients of x alone, as with frozen weights, and of the weight alone."""
    x, weight = normal(3, hidden, device=device), normal(hidden, device=device, seed=1)
    grad = normal(3, hidden, device=device, seed=2)
    for leaf in (x, weight):
        leaf.requires_grad_()
        (found,) = torch.autograd.grad(fused(x, (hidden,), weight), leaf, grad)
        (expected,) = torch.autograd.grad(torch_norm(x, (hidden,), weight), leaf, grad)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        leaf.requires_grad_(False)


@pytest.mark.interpreter
@every_norm
@every_size
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
def test_statistics_are_fp32(fused, torch_norm, hidden, dtype, monkeypatch):
    """In half precision the mean of these rows would err by up to 0.25."""
    x = (64 + normal(2, hidden, dtype=torch.float32)).to(dtype)
    with recorded(monkeypatch, "cpu") as calls:
        fused(x.requires_grad_(), (hidden,), eps=1e-5).sum().backward()
    mean, rstd = calls[-1].args[4:6]
    wide = x.detach().double()
    assert mean.dtype == rstd.dtype == torch.float32
    square = wide.square().mean(1)
    if fused is fa.layer_norm:
        torch.testing.assert_close(mean.double(), wide.mean(1), rtol=1e-6, atol=0)
        square = wide.var(1, correction=0)
    torch.testing.assert_close(rstd.double(), (square + 1e-5).rsqrt(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("device", LEGS[1:])
def test_sums_over_rows_are_fp32(device):
    """The terms have eight bits, so a sum in bf16 would lose bits from the third term on.

    The torch backend is left out: ATen sums rows in bf16 on the CPU, and its sum stops at 512.
    """
    rows, number = 1031, 1 + 2.0**-7
    x = normal(rows, 32, dtype=torch.bfloat16, device=device)
    weight, bias = torch.zeros(2, 32, device=device).requires_grad_()
    out = fa.layer_norm(x, (32,), weight, bias)
    (dbias,) = torch.autograd.grad(out, bias, torch.full_like(x, number))
    assert torch.equal(dbias, torch.full_like(bias, rows * number))


@every_leg
@pytest.mark.parametrize("add", [fa.add_layer_norm, fa.add_rms_norm])
def test_the_norm_is_of_the_rounded_sum(device, add):
    """The norm is that of the rounded sum; the rounding exceeds the tolerance here."""
    x = normal(4, 100, dtype=torch.float16, device=device)
    normed, total = add(x, torch.full_like(x, 64), (100,))
    norm = fa.layer_norm if add is fa.add_layer_norm else fa.rms_norm
    torch.testing.assert_close(normed, norm(total, (100,)))


@every_leg
@every_size
@pytest.mark.parametrize("dropout_p", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("rms", [False, True], ids=["layer_norm", "rms_norm"])
def test_post_norm_is_pre_norm_without_the_sum(device, hidden, dropout_p, rms):
    add = fa.add_rms_norm if rms else fa.add_layer_norm
    x, residual = normal(2, 3, hidden, device=device)
    torch.manual_seed(3)
    normed, total = add(x, residual, (hidden,), dropout_p=dropout_p)
    torch.manual_seed(3)
    alone = add(x, residual, (hidden,), dropout_p=dropout_p, prenorm=False)
    assert torch.equal(alone, normed)
    if dropout_p == 1:
        assert torch.equal(total, residual)
    if dropout_p == 0:
        assert torch.equal(total, residual + x)


@every_leg
def test_dropout_drops_its_share_anew_each_time_and_follows_the_seed(device):
    x, residual = torch.ones(64, 256, device=device), torch.zeros(64, 256, device=device)
    add = partial(fa.add_layer_norm, x, residual, (256,), dropout_p=0.3)
    torch.manual_seed(1)
    first, second = add()[1], add()[1]
    torch.manual_seed(1)
    assert torch.equal(add()[1], first) and not torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    share = (first == 0).double().mean().item()
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / first.numel())  # 4 standard deviations


@pytest.mark.interpreter
@every_size
def test_both_backends_drop_the_same(hidden, monkeypatch):
    x = torch.ones(3, hidden)
    torch.manual_seed(5)
    _, on_kernels = fa.add_layer_norm(x, 0 * x, (hidden,), dropout_p=0.5)
    monkeypatch.setattr(backend, "uses_triton", lambda *tensors: False)
    torch.manual_seed(5)
    _, on_torch = fa.add_layer_norm(x, 0 * x, (hidden,), dropout_p=0.5)
    assert torch.equal(on_kernels, on_torch)


@every_leg
@pytest.mark.parametrize("used", ["normed", "sum", "both"])
def test_gradients_through_either_output(device, used):
    """x and residual receive the gradients through the norm, the sum, or both."""
    x, residual = (normal(4, 100, device=device, seed=s).requires_grad_() for s in (0, 1))
    weight = normal(100, device=device, seed=2).requires_grad_()

    def pick(outputs):
        """A loss of the outputs in use; the other one has no gradient at all."""
        up, down = normal(2, 4, 100, device=device, seed=3)
        terms = {"normed": [outputs[0] * up], "sum": [outputs[1] * down]}
        terms["both"] = terms["normed"] + terms["sum"]
        return sum(term.sum() for term in terms[used])

    leaves = (x, residual, weight) if used != "sum" else (x, residual)
    found = torch.autograd.grad(pick(fa.add_layer_norm(x, residual, (100,), weight)), leaves)
    total = x + residual
    expected = torch.autograd.grad(pick((F.layer_norm(total, (100,), weight), total)), leaves)
    torch.testing.assert_close(found, expected)


@pytest.mark.gpu
@every_norm
def test_autocast_on_cuda_returns_fp32_as_torch_does(fused, torch_norm):
    x = normal(5, 100, dtype=torch.bfloat16, device="cuda").requires_grad_()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        found, expected = fused(x, (100,)), torch_norm(x, (100,))
    assert found.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert torch.autograd.grad(found.sum(), x)[0].dtype == torch.bfloat16


@every_leg
@every_norm
@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_autocast_on_the_cpu_leaves_dtypes_alone(device, fused, torch_norm, dtype):
    if device == "cuda":
        pytest.skip("on CUDA it does not")
    x = normal(2, 8, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fused(x, (8,)).dtype == torch_norm(x, (8,)).dtype == dtype


@every_leg
def test_default_eps_of_rms_norm_is_torchs(device):
    for dtype in (*FLOATS, torch.float64):
        x = torch.full((2, 4), 1e-4, dtype=dtype, device=device)
        torch.testing.assert_close(fa.rms_norm(x, (4,)), F.rms_norm(x, (4,)))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100", "gfx942", tuning.INTERPRETER])
def test_every_row_is_covered_and_fits_the_machine(arch):
    lanes = 64 if arch == "gfx942" else 32
    for hidden in (1, 2, 15, 16, 17, 100, 1024, 4097, 16384, 40000, 131072, 10**6):
        for kernel in ("forward", "forward_long", "backward", "backward_long", "columns", "reduce"):
            config = tuning.norm(kernel, hidden, arch)
            assert config.block_n & (config.block_n - 1) == 0
            assert 1 <= config.num_warps * lanes <= 1024


SMALL = torch.zeros(2, 3, 4)
META = torch.zeros(4, device="meta")
WRONG = {
    "x_list": (([1.0], (1,)), {}, TypeError, ["x", "tensor", "list"]),
    "x_int": ((SMALL.long(), (4,)), {}, TypeError, ["x", "float16", "torch.int64"]),
    "x_sparse": ((SMALL.to_sparse(), (4,)), {}, NotImplementedError, ["x", "dense"]),
    "shape_int": ((SMALL, 4), {}, TypeError, ["normalized_shape", "sequence", "int"]),
    "shape_empty": ((SMALL, ()), {}, RuntimeError, ["normalized_shape", "at least one", "()"]),
    "shape_wrong": ((SMALL, (5,)), {}, ValueError, ["normalized_shape", "(2, 3, 4)", "(5,)"]),
    "shape_first": ((SMALL, (2,)), {}, RuntimeError, ["normalized_shape", "(2, 3, 4)", "(2,)"]),
    "shape_long": ((SMALL, (1, 2, 3, 4)), {}, ValueError, ["normalized_shape", "(1, 2, 3, 4)"]),
    "weight": ((SMALL, (4,), torch.ones(3)), {}, RuntimeError, ["weight", "(4,)", "(3,)"]),
    "weight_rank": ((SMALL, (4,), torch.ones(1, 4)), {}, ValueError, ["weight", "(4,)", "(1, 4)"]),
    "weight_device": ((SMALL, (4,), META), {}, ValueError, ["weight", "cpu", "meta"]),
    "weight_list": ((SMALL, (4,), [1.0] * 4), {}, TypeError, ["weight", "tensor", "list"]),
    "weight_int": ((SMALL, (4,), torch.ones(4).long()), {}, TypeError, ["weight", "int64"]),
    "eps_negative": ((SMALL, (4,)), {"eps": -1e-5}, ValueError, ["eps", "positive", "-1e-05"]),
    "eps_nan": ((SMALL, (4,)), {"eps": math.nan}, ValueError, ["eps", "positive", "nan"]),
    "eps_inf": ((SMALL, (4,)), {"eps": math.inf}, ValueError, ["eps", "positive", "inf"]),
    "eps_str": ((SMALL, (4,)), {"eps": "1"}, TypeError, ["eps", "number", "str"]),
    "eps_bool": ((SMALL, (4,)), {"eps": True}, TypeError, ["eps", "number", "bool"]),
}
ONE, HALF = torch.ones(4), torch.ones(4, dtype=torch.float16)
WRONG_LAYER_NORM = {
    "eps_none": ((SMALL, (4,)), {"eps": None}, TypeError, ["eps", "number", "NoneType"]),
    "weight_half": ((SMALL, (4,), HALF), {}, TypeError, ["weight", "float32", "float16"]),
    "bias": ((SMALL, (4,), None, torch.ones(3)), {}, RuntimeError, ["bias", "(4,)", "(3,)"]),
    "bias_device": ((SMALL, (4,), ONE, META), {}, ValueError, ["bias", "cpu", "meta"]),
    "bias_dtype": ((SMALL.half(), (4,), ONE, HALF), {}, TypeError, ["bias", "float32", "float16"]),
    "bias_alone": ((SMALL.half(), (4,), None, ONE), {}, TypeError, ["bias", "float16", "float32"]),
    "bias_half": ((SMALL, (4,), None, HALF), {}, TypeError, ["bias", "float32", "float16"]),
}
WRONG_ADD = {
    "residual": (SMALL[0], {}, RuntimeError, ["residual", "(2, 3, 4)", "(3, 4)"]),
    "residual_list": ([1.0], {}, TypeError, ["residual", "tensor", "list"]),
    "residual_int": (SMALL.long(), {}, TypeError, ["residual", "float16", "int64"]),
    "residual_half": (SMALL.half(), {}, TypeError, ["residual", "float32", "float16"]),
    "residual_wide": (SMALL.double(), {}, TypeError, ["residual", "float32, that of x, got"]),
    "residual_device": (SMALL.to("meta"), {}, ValueError, ["residual", "cpu", "meta"]),
    "dropout_high": (SMALL, {"dropout_p": 1.5}, ValueError, ["dropout_p", "0 to 1", "1.5"]),
    "dropout_nan": (SMALL, {"dropout_p": math.nan}, ValueError, ["dropout_p", "0 to 1", "nan"]),
    "dropout_str": (SMALL, {"dropout_p": "0"}, TypeError, ["dropout_p", "number", "str"]),
}


def refused(call, error, words):
    """Like `check_refused`, but the exception may be a subclass of ``error``."""
    with pytest.raises(error) as caught:
        call()
    check_refused(call, type(caught.value), words)
    assert str(caught.value).startswith(words[0])


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("name", [*NORMS, "add_layer_norm", "add_rms_norm"])
def test_bad_input(name, wrong):
    (x, *args), options, error, words = wrong
    if name.startswith("add") and isinstance(x, torch.Tensor):
        args = [x.detach(), *args]
    elif name.startswith("add"):
        args = [SMALL, *args]
    refused(lambda: getattr(fa, name)(x, *args, **options), error, words)


@pytest.mark.parametrize("wrong", WRONG_LAYER_NORM.values(), ids=WRONG_LAYER_NORM)
def test_bad_input_of_layer_norm(wrong):
    args, options, error, words = wrong
    refused(lambda: fa.layer_norm(*args, **options), error, words)


@pytest.mark.parametrize("wrong", WRONG_ADD.values(), ids=WRONG_ADD)
@pytest.mark.parametrize("add", [fa.add_layer_norm, fa.add_rms_norm])
def test_bad_input_of_sums(add, wrong):
    residual, options, error, words = wrong
    refused(lambda: add(SMALL, residual, (4,), **options), error, words)


def test_autograd_of_the_torch_backend():
    """Where ATen is used, gradcheck, double backward and forward mode work as in PyTorch."""
    x, residual = (normal(3, 5, dtype=torch.float64, seed=s).requires_grad_() for s in (0, 1))
    weight = normal(5, dtype=torch.float64, seed=2).requires_grad_()

    def add(x, residual, weight):
        torch.manual_seed(0)
        return fa.add_layer_norm(x, residual, (5,), weight, dropout_p=0.3)

    torch.autograd.gradcheck(add, (x, residual, weight), check_forward_ad=True)
    torch.autograd.gradgradcheck(add, (x, residual, weight))
