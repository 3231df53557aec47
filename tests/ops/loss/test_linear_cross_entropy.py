"""`linear_cross_entropy` against a linear layer and torch's loss: values, memory, autograd.

`test_ops` covers the plain mean and the weighted, smoothed losses; this file covers what follows
from working in chunks and from computing gradients during the forward pass.

Seen failing on: the upstream gradient ignored, the last chunk left out, the weight's gradient
summed in bf16, ignored rows counted in the mean, saved gradients scaled in place, all logits saved,
gradients computed that are not needed, a second derivative of zero, NaN of ignored tokens in the
gradients of weight and hidden states.
"""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import fused_attention as fa
from benchmarks.harness.memory import cpu_peak
from fused_attention import tuning
from fused_attention.testing import OpCase, OpProblem
from fused_attention.testing.cross_entropy import IGNORED

from ...helpers.op_budget import ask, check, evaluate
from ...helpers.support import every_leg, name_of, poisoned, runs_triton
from ..attention.test_errors import NothingRuns

TOKENS, DIM, VOCABULARY = 21, 6, 70  # three chunks of 8, the last one partial
REDUCTIONS = ("mean", "sum", "none")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(tuning, "linear_cross_entropy_rows", lambda dim: 8)
    monkeypatch.setattr(tuning, "rows_in_cache", lambda columns: 3)


def inputs(problem: OpProblem):
    hidden = problem.normal(problem.rows, DIM)
    weight, bias = problem.normal(problem.hidden, DIM, stream=1), problem.normal(problem.hidden)
    target = torch.arange(problem.rows, device=problem.device) * 11 % problem.hidden
    target[3::4] = IGNORED
    return hidden, weight, bias, target


def ours(hidden, weight, bias, target, **options):
    return fa.linear_cross_entropy(hidden, weight, target, bias, **options)


def pair(hidden, weight, bias, target, class_weight=None, **options):
    return F.cross_entropy(F.linear(hidden, weight, bias), target, class_weight, **options)


def question(device, dtype=torch.float32, shape=(TOKENS, VOCABULARY), make=inputs, **options):
    case = OpCase(
        name="linear_cross_entropy",
        op=lambda *tensors: ours(*tensors, **options),
        reference=lambda *tensors: pair(*tensors, **options),
        make_inputs=make,
        flops=None,
        bytes=None,
    )
    return ask(case, OpProblem(*shape, dtype, device))


def made(device="cpu", dtype=torch.float32, **wanted):
    """The inputs as leaves; ``hidden=False`` and so on freezes one."""
    *leaves, target = inputs(OpProblem(TOKENS, VOCABULARY, dtype, device))
    names = ("hidden", "weight", "bias")
    leaves = [
        x.requires_grad_(wanted.get(name, True)) for name, x in zip(names, leaves, strict=True)
    ]
    return *leaves, target


@every_leg
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_options(device, dtype, smoothing, reduction):
    check(question(device, dtype, reduction=reduction, label_smoothing=smoothing))


@every_leg
@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 24])
def test_edges_of_chunks(device, tokens):
    check(question(device, shape=(tokens, VOCABULARY)))


@every_leg
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ignored_tokens_have_no_effect(device, reduction, smoothing):
    """NaN in their hidden states and upstream gradients changes no bit of any result."""
    asked = question(device, reduction=reduction, label_smoothing=smoothing)
    hidden, *rest, target = asked.inputs
    ignored = target == IGNORED
    changed = hidden.masked_fill(ignored[:, None], torch.nan)
    upstream = asked.upstream
    if reduction == "none":
        upstream = (upstream[0].masked_fill(ignored, torch.nan),)
    expected = evaluate(asked.case.op, asked)
    found = evaluate(
        asked.case.op, asked._replace(inputs=(changed, *rest, target), upstream=upstream)
    )
    for name, x in expected.items():
        assert torch.equal(found[name], x), name
    assert not found["d0"][ignored].any()


@every_leg
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("spoiled", ["weight", "upstream"])
def test_ignored_tokens_have_gradient_zero_beside_nan(device, reduction, spoiled):
    asked = question(device, reduction=reduction)
    hidden, weight, bias, target = asked.inputs
    upstream = asked.upstream
    if spoiled == "weight":
        weight = weight.clone()
        weight[5, 2] = torch.nan
    else:
        upstream = (torch.full_like(upstream[0], torch.nan),)
    asked = asked._replace(inputs=(hidden, weight, bias, target), upstream=upstream)
    found = evaluate(asked.case.op, asked)["d0"]
    ignored = target == IGNORED
    assert not found[ignored].any() and found[~ignored].isnan().all()


@every_leg
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
def test_a_loss_alone_and_in_a_batch_differ_by_rounding(device, dtype):
    """In two orders of summation, a logit differs by at most 2 D eps Σ_d |h_d w_d|.

    In half precision it may also be rounded to the next number.  The loss is the difference of the
    log-sum-exp and a logit, so it changes at most twice as much; a sum of C exponentials may be off
    by C eps, and the loss is rounded to the dtype.
    """
    hidden, weight, bias, target = inputs(OpProblem(TOKENS, VOCABULARY, dtype, device))
    target = target.clamp(min=0)
    batch = ours(hidden, weight, bias, target, reduction="none").double()
    sizes = (hidden.double().abs() @ weight.double().abs().T + bias.double().abs()).amax(1)
    eps = torch.finfo(torch.float32).eps
    roundings = 2 * (DIM + 1) * eps + (torch.finfo(dtype).eps if dtype != torch.float32 else 0)
    for start, stop in ((0, 1), (3, 5), (6, 9), (2, 19)):
        part = slice(start, stop)
        alone = ours(hidden[part], weight, bias, target[part], reduction="none").double()
        stored = torch.finfo(dtype).eps * batch[part].abs()
        allowed = 2 * sizes[part] * roundings + 2 * VOCABULARY * eps + stored
        assert ((alone - batch[part]).abs() <= allowed).all()


def summed_many_times(problem: OpProblem):
    """Every chunk adds to a large sum an amount too small for bf16."""
    hidden = 1 + problem.normal(problem.rows, DIM) / 16
    weight = problem.normal(problem.hidden, DIM, stream=1) / 16
    target = torch.zeros(problem.rows, dtype=torch.long, device=problem.device)
    return hidden, weight, problem.normal(problem.hidden), target


@every_leg
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_sums_over_chunks_are_fp32(device, reduction, monkeypatch):
    monkeypatch.setattr(tuning, "linear_cross_entropy_rows", lambda dim: 1)
    tokens = 150 if runs_triton(device) and device == "cpu" else 1000
    asked = question(device, torch.bfloat16, (tokens, 5), summed_many_times, reduction=reduction)
    ones = tuple(torch.ones_like(x) for x in asked.upstream)
    check(asked._replace(upstream=ones))


def test_half_precision_gradients_do_not_underflow():
    """The forward pass computes them before the loss scale of fp16 training is known."""
    hidden, weight, bias, target = made(dtype=torch.float16)
    scale = 2.0**15
    results = []
    for function, dtype in ((ours, torch.float16), (pair, torch.float64)):
        leaves = [x.detach().to(dtype).requires_grad_() for x in (hidden, weight, bias)]
        loss = function(*leaves, target)
        results.append(torch.autograd.grad(loss, leaves, torch.full_like(loss, scale)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=4e-3, atol=4e-3 * expected.max())


@every_leg
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_class_weights(device, reduction):
    weight = (torch.arange(VOCABULARY, device=device) % 5 + 1) / 4
    for smoothing in (0.0, 0.1):
        results = []
        for function in (ours, pair):
            *leaves, target = made(device)
            loss = function(
                *leaves,
                target,
                class_weight=weight,
                reduction=reduction,
                label_smoothing=smoothing,
            )
            results.append((loss, *torch.autograd.grad(loss.sum(), leaves)))
        torch.testing.assert_close(*results)


@every_leg
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias"])
def test_frozen_inputs_cost_nothing(device, frozen, reduction):
    results, flops = [], []
    for function in (ours, pair):
        *leaves, target = made(device, **{frozen: False})
        with FlopCounterMode(display=False) as counter:
            loss = function(*leaves, target, reduction=reduction)
            loss.sum().backward()
        results.append((loss, *(x.grad for x in leaves if x.requires_grad)))
        flops.append(counter.get_total_flops())
    torch.testing.assert_close(*results)
    again = 0 if reduction != "none" else 2 * TOKENS * DIM * VOCABULARY
    assert flops[0] == flops[1] + again


@every_leg
def test_no_grad_computes_no_gradients(device):
    *leaves, target = made(device)
    expected = fa.linear_cross_entropy(*leaves[:2], target, leaves[2])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        loss = fa.linear_cross_entropy(*leaves[:2], target, leaves[2])
    assert torch.equal(loss, expected) and not loss.requires_grad
    assert counter.get_total_flops() == 2 * TOKENS * DIM * VOCABULARY


@every_leg
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_backward_twice_and_the_same_every_time(device, reduction):
    runs = []
    for _ in range(2):
        *leaves, target = made(device)
        with poisoned():
            loss = ours(*leaves, target, reduction=reduction)
            for factor in (1.0, 3.0):
                upstream = torch.full_like(loss, factor)
                runs.append(torch.autograd.grad(loss, leaves, upstream, retain_graph=True))
    first, tripled, *again = runs
    for x, y, z, w in zip(first, tripled, *again, strict=True):
        assert torch.equal(x, z) and torch.equal(y, w)
        torch.testing.assert_close(3 * x, y)


SHAPES = ((), (5,), (3, 4), (2, 0), (0,))


@every_leg
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_shapes(device, shape, reduction):
    results = []
    for function in (ours, pair):
        _, weight, bias, _ = made(device)
        generator = torch.Generator(device).manual_seed(1)
        hidden = torch.randn(*shape, DIM, generator=generator, device=device, requires_grad=True)
        target = torch.randint(VOCABULARY, shape, generator=generator, device=device)
        if function is pair:
            loss = pair(
                hidden.reshape(-1, DIM), weight, bias, target.flatten(), reduction=reduction
            )
            loss = loss.reshape(shape if reduction == "none" else ())
        else:
            loss = ours(hidden, weight, bias, target, reduction=reduction)
        results.append((loss, *torch.autograd.grad(loss.sum(), (hidden, weight, bias))))
    torch.testing.assert_close(*results, equal_nan=True)


@every_leg
def test_every_target_ignored(device):
    results = []
    for function in (ours, pair):
        *leaves, target = made(device)
        loss = function(*leaves, torch.full_like(target, IGNORED))
        results.append((loss, *torch.autograd.grad(loss, leaves)))
    assert results[0][0].isnan()
    torch.testing.assert_close(*results, equal_nan=True)


@every_leg
@pytest.mark.parametrize("wrong", [VOCABULARY, -1, 2**40])
def test_target_out_of_range(device, wrong):
    *leaves, target = made(device)
    target[9] = wrong
    if device == "cpu":
        with pytest.raises(IndexError, match=f"target: .*0 to {VOCABULARY - 1}.* got {wrong}"):
            ours(*leaves, target)
        return
    losses = ours(*leaves, target, reduction="none")
    assert losses.isnan().nonzero().tolist() == [[9]]
    assert ours(*leaves, target).isnan()


@every_leg
def test_hidden_states_and_targets_stay_as_they_are(device):
    *leaves, target = made(device)
    before = [x.detach().clone() for x in (*leaves, target)]
    ours(*leaves, target).backward()
    for x, y in zip((*leaves, target), before, strict=True):
        assert torch.equal(x, y)


@every_leg
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_autocast(device, reduction):
    results = []
    for function in (ours, pair):
        *leaves, target = made(device)
        with torch.autocast(device, torch.bfloat16):
            loss = function(*leaves, target, reduction=reduction)
            gradients = torch.autograd.grad(loss.sum(), leaves)
        results.append((loss, *gradients))
    assert results[0][0].dtype == torch.float32
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=2**-7 * scale)


def test_logits_are_rounded_once():
    """The bias is added before rounding, as in F.linear, so the bf16 logits are the same."""
    *leaves, target = made()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (f(*leaves, target, reduction="none") for f in (ours, pair))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck(reduction):
    *leaves, target = made(dtype=torch.float64)
    class_weight = torch.rand(VOCABULARY, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *leaves: ours(
            *leaves,
            target,
            class_weight=class_weight,
            reduction=reduction,
            label_smoothing=0.1,
        ),
        leaves,
        fast_mode=True,
    )


@every_leg
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_second_derivatives_are_refused(device, reduction):
    *leaves, target = made(device)
    loss = ours(*leaves, target, reduction=reduction).sum()
    gradients = torch.autograd.grad(loss, leaves, create_graph=True)
    with pytest.raises(NotImplementedError, match="double backward"):
        sum(x.sum() for x in gradients).backward()
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(
            lambda x: fa.linear_cross_entropy(x, leaves[1].detach(), target),
            (leaves[0].detach(),),
            (torch.ones_like(leaves[0]),),
        )


@every_leg
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_compile_with_any_number_of_tokens(device, reduction):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda *tensors: ours(*tensors, reduction=reduction).sum() * 2,
        fullgraph=True,
        backend="aot_eager",
        dynamic=True,
    )
    for tokens in (TOKENS, 9):
        results = []
        for function in (compiled, lambda *tensors: ours(*tensors, reduction=reduction).sum() * 2):
            *leaves, target = made(device)
            loss = function(leaves[0][:tokens], *leaves[1:], target[:tokens])
            results.append((loss, *torch.autograd.grad(loss, leaves)))
        torch.testing.assert_close(*results)


MEASURE = """
import sys
import torch
from torch.nn import functional as F
import fused_attention as fa
from benchmarks.harness.memory import cpu_peak

def pair(hidden, weight, target):
    return F.cross_entropy(F.linear(hidden, weight), target)

function = {"pair": pair, "ours": fa.linear_cross_entropy}[sys.argv[1]]
hidden = torch.randn(4096, 64, requires_grad=True)
weight = torch.randn(6000, 64, requires_grad=True)
target = torch.randint(6000, (4096,))
small = [x.detach()[:8].requires_grad_() for x in (hidden, weight)]
function(*small, target[:8] % 8).backward()  # what PyTorch allocates once is not counted
print(cpu_peak(lambda: function(hidden, weight, target).backward())["peak"])
"""


reads_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@reads_proc
def test_peak_memory_is_a_fraction_of_separate_calls():
    """Forward and backward of each function in its own process: 4,096 tokens, 98 MB of logits."""
    peaks = {
        name: int(subprocess.check_output([sys.executable, "-c", MEASURE, name], text=True))
        for name in ("pair", "ours")
    }
    logits = 4096 * 6000 * 4
    assert peaks["pair"] > 2 * logits, "the pair holds logits and their gradient"
    assert peaks["ours"] < peaks["pair"] / 4, peaks


@reads_proc
def test_backward_allocates_only_what_it_returns():
    """Backward allocates the gradients that it returns and nothing else of that size."""
    hidden = torch.randn(16, 256, requires_grad=True)
    weight = torch.randn(20_000, 256, requires_grad=True)
    loss = fa.linear_cross_entropy(hidden, weight, torch.arange(16))
    peak = cpu_peak(lambda: torch.autograd.grad(loss, (hidden, weight)))["peak"]
    assert peak < 1.5 * weight.nbytes


H, W, T, B = torch.zeros(4, 3), torch.zeros(9, 3), torch.zeros(4, dtype=torch.long), torch.zeros(9)
WRONG = {
    "list": (([1.0], W, T), {}, TypeError, "hidden: expected a tensor, got list"),
    "scalar": ((H[0, 0], W, T), {}, ValueError, "hidden: .*scalar"),
    "integers": ((H.long(), W, T), {}, TypeError, "hidden: .*torch.int64"),
    "weight_rank": ((H, B, T), {}, ValueError, r"weight: expected \(vocabulary, dim\), got \(9,\)"),
    "weight_dim": (
        (H, W[:, :2], T),
        {},
        ValueError,
        r"weight: expected shape \(9, 3\), got \(9, 2",
    ),
    "weight_dtype": ((H, W.double(), T), {}, TypeError, "weight: .*hidden, torch.float32, got"),
    "weight_device": ((H, W.to("meta"), T), {}, ValueError, "weight: .*device of hidden, cpu"),
    "no_classes": ((H, W[:0], T), {}, ValueError, "weight: expected at least one row"),
    "target_shape": ((H, W, T[:3]), {}, ValueError, r"target: expected shape \(4,\), got \(3,\)"),
    "target_dtype": ((H, W, T.int()), {}, TypeError, "target: .*int64 or uint8, got torch.int32"),
    "odds": ((H, W, torch.zeros(4, 9)), {}, ValueError, "target: expected shape"),
    "bias_shape": ((H, W, T, B[:8]), {}, ValueError, r"bias: expected shape \(9,\), got \(8,\)"),
    "bias_dtype": ((H, W, T, B.half()), {}, TypeError, "bias: expected the dtype of hidden"),
    "class_weight": ((H, W, T), {"class_weight": H}, ValueError, "class_weight: expected shape"),
    "gradient_of_class_weight": (
        (H, W, T),
        {"class_weight": torch.ones(9, requires_grad=True)},
        NotImplementedError,
        "class_weight: there is no gradient",
    ),
    "reduction": ((H, W, T), {"reduction": "max"}, ValueError, "reduction: expected one of none"),
    "ignore_index": ((H, W, T), {"ignore_index": None}, TypeError, "ignore_index: .*NoneType"),
    "smoothing": ((H, W, T), {"label_smoothing": 2}, ValueError, "label_smoothing: .*got 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input(name):
    args, kwargs, error, message = WRONG[name]
    with NothingRuns(), pytest.raises(error, match=message):
        fa.linear_cross_entropy(*args, **kwargs)
