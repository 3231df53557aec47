"""`cross_entropy` against torch's: values, torch's own samples, targets out of range.

`test_ops` covers the plain loss and the weighted, smoothed one; this file covers the rest of
torch's signature, adversarial logits, and which calls use the kernels.

Seen failing on: no maximum subtracted, no rescale of the running sum, ignored rows counted in the
mean, the smoothing term or its part of the gradient dropped, the upstream gradient ignored, log_z
stored as one number, the last block not masked, the logit of a target out of range read, the
logits overwritten by their gradient.
"""

import math
import warnings
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import fused_attention as fa
from fused_attention import tuning
from fused_attention.ops.loss.reduction import _total_weight
from fused_attention.testing import OpCase, OpProblem
from fused_attention.testing.cross_entropy import IGNORED

from ...helpers.op_budget import Question, ask, check, evaluate
from ...helpers.op_calls import recorded
from ...helpers.support import every_leg, poisoned, runs_triton
from ..attention.test_errors import NothingRuns

LOGITS = (6, 130)  # three blocks where Triton is interpreted, the last one partial


def logits_and_targets(problem: OpProblem, ignore=IGNORED):
    logits = problem.normal(problem.rows, problem.hidden)
    target = torch.arange(problem.rows, device=problem.device) * 7 % problem.hidden
    target[2::4] = ignore
    return logits, target


def a_case(make_inputs=logits_and_targets, **options) -> OpCase:
    ours, theirs = (_with(function, **options) for function in (fa.cross_entropy, F.cross_entropy))
    return OpCase("cross_entropy", ours, theirs, make_inputs, flops=None, bytes=None)


def _with(function, weighted=False, **options):
    def loss(logits, target):
        weight = None
        if weighted:
            weight = torch.arange(logits.shape[1], device=logits.device) % 5 / 4
            weight = weight.to(logits.dtype)
        return function(logits, target, weight, **options)

    return loss


def question(device, dtype=torch.float32, bend=None, shape=LOGITS, **options) -> Question:
    return ask(a_case(**options), OpProblem(*shape, dtype, device), bend)


@every_leg
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_options(device, weighted, smoothing, reduction, monkeypatch):
    options = {"weighted": weighted, "label_smoothing": smoothing, "reduction": reduction}
    with recorded(monkeypatch, device) as calls:
        check(question(device, **options))
    assert calls


@every_leg
@pytest.mark.parametrize("ignore_index", [-1, 0, 7, 10**12])
def test_ignore_index(device, ignore_index, monkeypatch):
    make_inputs = partial(logits_and_targets, ignore=ignore_index)
    with recorded(monkeypatch, device):
        check(question(device, make_inputs=make_inputs, ignore_index=ignore_index))


def large(x):
    return x * 1e4


def large_and_constant(x):
    return torch.full_like(x, 1e4)


def rising(x):
    """Logits rise along a row, so that every block has a new maximum."""
    return torch.arange(x.shape[1], device=x.device, dtype=x.dtype).expand(x.shape) * 8


def sure(x):
    """The target has nearly all the probability, so that its gradient is tiny."""
    x = x.clone()
    rows = torch.arange(len(x), device=x.device)
    x[rows, rows * 7 % x.shape[1]] = 30
    return x


def forbidden(x):
    """Many logits are -inf, among them the first two blocks of a row."""
    x = x.clone()
    x[:, 1::3] = -math.inf
    x[1, :128] = -math.inf
    return x


@every_leg
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "bend", [large, large_and_constant, rising, sure], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_adversarial_logits(device, dtype, bend, smoothing, monkeypatch):
    with recorded(monkeypatch, device):
        check(question(device, dtype, bend, reduction="none", label_smoothing=smoothing))


@every_leg
def test_probabilities_of_large_logits_keep_their_digits(device, monkeypatch):
    """With logits of 10,000, log_z as one fp32 number would err by 0.0005."""
    logits = torch.full(LOGITS, 1e4, device=device, requires_grad=True)
    with recorded(monkeypatch, device):
        loss = fa.cross_entropy(logits, torch.zeros(LOGITS[0], dtype=torch.long, device=device))
        (dlogits,) = torch.autograd.grad(loss, logits)
    expected = torch.full_like(logits, 1 / LOGITS[0] / LOGITS[1])[:, 1:]
    torch.testing.assert_close(dlogits[:, 1:], expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(loss.item(), math.log(LOGITS[1]), rtol=1e-6, atol=0)


@every_leg
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_logits_of_minus_infinity(device, smoothing, monkeypatch):
    asked = question(device, bend=forbidden, reduction="none", label_smoothing=smoothing)
    with recorded(monkeypatch, device):
        found = evaluate(asked.case.op, asked)
    exact = evaluate(asked.case.reference, asked.double())
    assert found["out0"].isinf().any() or smoothing == 0
    for name, x in exact.items():
        torch.testing.assert_close(found[name], x.float(), equal_nan=True, msg=name)


@every_leg
def test_rows_of_infinity_and_nan(device, monkeypatch):
    """A row of -inf, or with +inf or NaN, gives NaN as in torch, and only in that row."""
    logits = OpProblem(4, 130, torch.float32, device).normal(4, 130)
    logits[0], logits[1, 100], logits[2, 100] = -math.inf, math.inf, math.nan
    target = torch.tensor([1, 2, 3, 4], device=device)
    with recorded(monkeypatch, device):
        found = fa.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(
        found, F.cross_entropy(logits, target, reduction="none"), equal_nan=True
    )
    assert found.isnan().tolist() == [True, True, True, False]


@every_leg
@pytest.mark.parametrize("block, warps", [(1024, 4), (4096, 8)])
def test_a_vocabulary_beyond_65536(device, block, warps, monkeypatch):
    monkeypatch.setattr(tuning, "cross_entropy", lambda *_: tuning.BlockConfig(block, warps))
    with recorded(monkeypatch, device):
        check(question(device, shape=(3, 70_001), reduction="none", label_smoothing=0.1))


@every_leg
def test_ignored_rows_are_not_read(device, monkeypatch):
    if not runs_triton(device):
        pytest.skip("torch's own lets NaN through, and is left alone")
    logits, target = logits_and_targets(OpProblem(*LOGITS, torch.float32, device))
    clean = logits.clone().requires_grad_()
    logits[target == IGNORED] = math.nan
    logits.requires_grad_()
    loss, expected = fa.cross_entropy(logits, target), fa.cross_entropy(clean, target)
    assert torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    assert torch.equal(logits.grad, clean.grad)
    assert (logits.grad[target == IGNORED] == 0).all()


@every_leg
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_every_target_ignored(device, weighted, monkeypatch):
    """If every target is ignored, the mean is NaN with a gradient of zero, and the sum is 0."""
    logits = torch.randn(3, 5, device=device)
    target = torch.full((3,), IGNORED, device=device)
    for reduction in ("mean", "sum", "none"):
        results = []
        for function in (fa.cross_entropy, F.cross_entropy):
            x = logits.clone().requires_grad_()
            with recorded(monkeypatch, device):
                loss = _with(function, weighted=weighted, reduction=reduction)(x, target)
                loss.sum().backward()
            results.append((loss, x.grad))
        torch.testing.assert_close(*results, equal_nan=True)
    no_rows = fa.cross_entropy(logits[:0], target[:0])
    assert no_rows.isnan()


@every_leg
@pytest.mark.parametrize("wrong", [130, -1, -101, 2**40, -(2**40)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_target_out_of_range(device, wrong, smoothing, monkeypatch):
    """It raises IndexError on the CPU; the kernels return NaN in its row and no other."""
    logits, target = logits_and_targets(OpProblem(*LOGITS, torch.float32, device))
    right = target.clone()
    target[1] = wrong
    call = partial(fa.cross_entropy, reduction="none", label_smoothing=smoothing)
    if not runs_triton(device):
        with pytest.raises(IndexError, match=f"Target {wrong} is out of bounds"):
            call(logits, target)
        operator = torch.ops.fused_attention.cross_entropy
        with pytest.raises(IndexError, match=f"target: expected class indices.* got {wrong}"):
            operator(logits, target, None, IGNORED, smoothing)
        return
    results = []
    for t in (target, right):
        x = logits.clone().requires_grad_()
        with poisoned():
            loss = call(x, t)
            (dx,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
        results.append((loss, dx))
    (loss, dx), (expected, expected_dx) = results
    rest = torch.arange(len(target), device=device) != 1
    assert loss[1].isnan() and dx[1].isnan().all()
    assert torch.equal(loss[rest], expected[rest]) and torch.equal(dx[rest], expected_dx[rest])
    assert fa.cross_entropy(logits, target).isnan()


@every_leg
def test_the_logits_stay_as_they_are(device, monkeypatch):
    logits, target = logits_and_targets(OpProblem(*LOGITS, torch.float32, device))
    before = logits.clone()
    with recorded(monkeypatch, device):
        loss = fa.cross_entropy(logits.requires_grad_(), target)
        first = torch.autograd.grad(loss, logits, retain_graph=True)
        second = torch.autograd.grad(loss, logits)
    assert torch.equal(logits, before)
    assert torch.equal(*first, *second)


SHAPES = {
    "one_row": ((9,), True),
    "rows": ((4, 9), True),
    "one_class": ((4, 1), True),
    "classes_last": ((2, 3, 5, 9), True),
    "classes_first": ((2, 9, 5), False),
}


@every_leg
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_shapes_and_which_use_the_kernels(device, name, reduction, monkeypatch):
    shape, served = SHAPES[name]
    logits = torch.randn(shape, device=device)
    if name == "classes_last":
        logits = logits.movedim(-1, 1)
    classes = logits.shape[min(1, logits.ndim - 1)]
    size = () if logits.ndim == 1 else (logits.shape[0], *logits.shape[2:])
    target = torch.randint(classes, size, device=device)
    results = []
    for function in (fa.cross_entropy, F.cross_entropy):
        x = logits.clone().requires_grad_()
        with recorded(monkeypatch, device) as calls:
            loss = function(x, target, reduction=reduction)
            loss.sum().backward()
        results.append((loss, x.grad))
        assert bool(calls) == (served and function is fa.cross_entropy)
    torch.testing.assert_close(*results)


@every_leg
@pytest.mark.parametrize(
    "change",
    [
        lambda x, t, w: (x.double(), t, None),
        lambda x, t, w: (x.mT.contiguous().mT, t, None),
        lambda x, t, w: (x, x.softmax(1), w),
    ],
    ids=["fp64", "classes_apart", "probabilities"],
)
def test_other_calls_use_torchs(device, change):
    x, t, w = change(
        torch.randn(4, 9, device=device),
        torch.arange(4, device=device),
        torch.rand(9, device=device),
    )
    found = fa.cross_entropy(x.requires_grad_(), t, w, label_smoothing=0.1)
    expected = F.cross_entropy(x, t, w, label_smoothing=0.1)
    assert torch.equal(found, expected)


@every_leg
def test_class_weights_have_no_gradient(device):
    logits, target = torch.randn(2, 3, device=device), torch.arange(2, device=device)
    with pytest.raises(RuntimeError, match="not differentiable with respect to argument 'weight'"):
        fa.cross_entropy(logits, target, torch.rand(3, device=device, requires_grad=True))


@every_leg
def test_one_row_with_a_target_of_shape_one(device, monkeypatch):
    """Logits (C,) with a target (1,): torch accepts this forward, though its backward fails."""
    logits, target = torch.randn(9, device=device), torch.tensor([3], device=device)
    for reduction in ("none", "mean"):
        with recorded(monkeypatch, device):
            found = fa.cross_entropy(logits, target, reduction=reduction)
        expected = F.cross_entropy(logits, target, reduction=reduction)
        torch.testing.assert_close(found.reshape(()), expected.reshape(()))


@every_leg
def test_uint8_targets(device, monkeypatch):
    logits = torch.randn(3, 300, device=device)
    target = torch.tensor([0, 255, 156], dtype=torch.uint8, device=device)
    with recorded(monkeypatch, device):
        torch.testing.assert_close(
            fa.cross_entropy(logits, target), F.cross_entropy(logits, target.long())
        )


@every_leg
@pytest.mark.parametrize("size_average", [None, True, False])
@pytest.mark.parametrize("reduce", [None, True, False])
def test_deprecated_arguments(device, size_average, reduce, monkeypatch):
    logits, target = torch.randn(3, 5, device=device), torch.arange(3, device=device)
    options = {"size_average": size_average, "reduce": reduce, "reduction": "sum"}
    with warnings.catch_warnings(record=True) as caught, recorded(monkeypatch, device):
        warnings.simplefilter("always")
        found = fa.cross_entropy(logits, target, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = F.cross_entropy(logits, target, **options)
    torch.testing.assert_close(found, expected)
    told = any("size_average and reduce args" in str(warning.message) for warning in caught)
    assert told == (size_average is not None or reduce is not None)


OPINFO = next(op for op in op_db if op.name == "nn.functional.cross_entropy")
MODULE = next(module for module in module_db if module.name == "nn.CrossEntropyLoss")


def agree(args, kwargs):
    """Assert that the loss and the gradient of the input agree with torch's."""
    results = []
    for function in (fa.cross_entropy, F.cross_entropy):
        x = args[0].detach().clone().requires_grad_()
        loss = function(x, *args[1:], **kwargs)
        results.append((loss, *torch.autograd.grad(loss.sum(), x)))
    torch.testing.assert_close(*results, equal_nan=True)


@every_leg
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_torchs_samples(device, dtype, monkeypatch):
    with recorded(monkeypatch, device) as calls:
        for sample in OPINFO.sample_inputs(device, dtype, requires_grad=False):
            agree((sample.input, *sample.args), sample.kwargs)
    assert calls or (dtype == torch.float64 and runs_triton(device))


def module_calls(inputs):
    for module_input in inputs:
        constructed, called = module_input.constructor_input, module_input.forward_input
        yield called.args, {**constructed.kwargs, **called.kwargs}


@every_leg
def test_torchs_module_inputs(device, monkeypatch):
    inputs = MODULE.module_inputs_func(MODULE, device, torch.float32, False, False)
    with recorded(monkeypatch, device) as calls:
        for args, kwargs in module_calls(inputs):
            agree(args, kwargs)
    assert calls


@pytest.mark.skipif(
    MODULE.module_error_inputs_func is None, reason="this torch has no wrong inputs for the loss"
)
@every_leg
def test_torchs_error_inputs(device):
    errors = MODULE.module_error_inputs_func(MODULE, device, torch.float32, False, False)
    assert errors
    for error in errors:
        ((args, kwargs),) = module_calls([error.module_error_input])
        with pytest.raises(error.error_type):
            fa.cross_entropy(*args, **kwargs)


X, T = torch.zeros(4, 9), torch.zeros(4, dtype=torch.long)
WRONG = {
    "list": (([1.0], T), {}, TypeError, "input: expected a tensor, got list"),
    "scalar": ((X[0, 0], T), {}, ValueError, "input: expected .*scalar"),
    "integers": ((X.long(), T), {}, TypeError, "input: expected dtype float16.* torch.int64"),
    "target_list": ((X, [0]), {}, TypeError, "target: expected a tensor, got list"),
    "target_shape": ((X, T[:3]), {}, ValueError, r"target: expected shape \(4,\), got \(3,\)"),
    "target_dtype": ((X, T.int()), {}, TypeError, "target: .*int64 or uint8, got torch.int32"),
    "target_device": (
        (X, T.to("meta")),
        {},
        ValueError,
        "target: expected the device of the logits, cpu, got meta",
    ),
    "hard_labels": ((X, X.long()), {}, TypeError, "target: expected class probabilities"),
    "weight_shape": ((X, T, X[0, :8]), {}, ValueError, r"weight: expected shape \(9,\), got \(8,"),
    "weight_device": ((X, T, X[0].to("meta")), {}, ValueError, "weight: expected the device"),
    "reduction": ((X, T), {"reduction": "max"}, ValueError, "reduction: expected one of none"),
    "ignore_index": ((X, T), {"ignore_index": 1.5}, TypeError, "ignore_index: .*float"),
    "ignored_odds": ((X, X), {"ignore_index": 1}, ValueError, "ignore_index: .*probabilities"),
    "smoothing_high": ((X, T), {"label_smoothing": 1.1}, ValueError, "label_smoothing: .*1.1"),
    "smoothing_low": ((X, T), {"label_smoothing": -0.1}, ValueError, "label_smoothing: .*-0.1"),
    "smoothing_nan": ((X, T), {"label_smoothing": math.nan}, ValueError, "label_smoothing: .*nan"),
    "smoothing_str": ((X, T), {"label_smoothing": "0"}, TypeError, "label_smoothing: .*str"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input(name):
    args, kwargs, error, message = WRONG[name]
    with NothingRuns(), pytest.raises(error, match=message):
        fa.cross_entropy(*args, **kwargs)


@every_leg
def test_a_weight_of_another_dtype(device):
    logits, target = torch.randn(2, 3, device=device), torch.arange(2, device=device)
    with pytest.raises(RuntimeError):
        fa.cross_entropy(logits.bfloat16(), target, torch.rand(3, device=device))


@every_leg
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_autocast(device, weighted, monkeypatch):
    """The loss of half-precision logits is in fp32 and equals that of their fp32 copy."""
    logits, target = logits_and_targets(OpProblem(*LOGITS, torch.bfloat16, device))
    results = []
    for function in (fa.cross_entropy, F.cross_entropy):
        x = logits.clone().requires_grad_()
        with torch.autocast(device, torch.bfloat16), recorded(monkeypatch, device):
            loss = _with(function, weighted=weighted, label_smoothing=0.1)(x, target)
        results.append((loss, *torch.autograd.grad(loss, x)))
    assert results[0][0].dtype == torch.float32 and results[0][1].dtype == torch.bfloat16
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_operators_on_pytorch_have_the_right_gradient(smoothing, monkeypatch):
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 6, IGNORED, 3, 3])
    weight = torch.rand(7, dtype=torch.float64)

    def losses(logits):
        return torch.ops.fused_attention.cross_entropy(logits, target, weight, IGNORED, smoothing)[
            0
        ]

    assert torch.autograd.gradcheck(losses, logits)
    expected = F.cross_entropy(logits, target, weight, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(losses(logits), expected)


def test_the_mean_reads_no_class_weight_out_of_bounds():
    weight = torch.tensor([1.0, 2.0, 4.0])
    target = torch.tensor([2, 0, IGNORED, 2**40, -7])
    divisor = _total_weight(target, weight, IGNORED)
    assert divisor == 4 + 1 + 4 + 1  # the last two count as some valid class
