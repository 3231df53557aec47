"""Every fused op of the table of cases: values, strides, opcheck, compile, export.

Seen failing on: a gradient that is a sum without its last row, a fake in another dtype, an operator
that writes to its input, a buffer left unwritten, an op that is not traceable.
"""

import pytest
import torch

from fused_attention.testing import CASES, OpProblem

from ..helpers.op_budget import Question, ask, check, evaluate
from ..helpers.op_calls import recorded, traced_through_operators
from ..helpers.support import FLOATS, LEGS, dtypes_of, name_of, runs_triton

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_leg = pytest.mark.parametrize("device", LEGS)

DIFFERENTIABLE = (
    "test_schema",
    "test_autograd_registration",
    "test_faketensor",
    "test_aot_dispatch_dynamic",
)
NOT_DIFFERENTIABLE = ("test_schema", "test_faketensor")


def rows_of(device: str, hidden: int) -> int:
    """An odd number of rows, small where interpreting a program takes a millisecond."""
    if device == "cuda":
        return 1031 if hidden <= 1024 else 131
    if runs_triton(device):
        return 5 if hidden <= 1024 else 2
    return 33 if hidden <= 1024 else 3


def problem_of(device: str, hidden: int, dtype=torch.float32) -> OpProblem:
    return OpProblem(rows_of(device, hidden), hidden, dtype, device)


def middle(case) -> tuple[int, ...]:
    """Two hidden sizes with a partial last block: one fits in a block, the other may not."""
    return case.sizes[len(case.sizes) // 2 - 2], case.sizes[-3]


@every_leg
@every_case
def test_outputs_and_gradients(device, case):
    for turn, hidden in enumerate(case.sizes, CASES.index(case)):
        for dtype in dtypes_of(device, turn):
            question = ask(case, problem_of(device, hidden, dtype))
            check(question, f"hidden {hidden} {name_of(dtype)}")


def constant(x):
    return x[:, :1].expand(x.shape).contiguous()


def huge(x):
    """As large as possible without overflow in squares, their sums and their products."""
    return x * torch.finfo(x.dtype).max ** 0.25


def tiny(x):
    return x * torch.finfo(x.dtype).tiny ** 0.5


def shifted(x):
    """A mean far from zero compared with the spread."""
    return x + 64


def outliers(x):
    x = x.clone()
    x[::2, :: max(1, x.shape[1] // 3)] = 60
    return x


@every_leg
@every_case
@pytest.mark.parametrize(
    "bend", [constant, huge, tiny, shifted, outliers], ids=lambda f: f.__name__
)
def test_adversarial_inputs(device, case, bend):
    for turn, hidden in enumerate(middle(case), CASES.index(case)):
        for dtype in dtypes_of(device, turn):
            question = ask(case, problem_of(device, hidden, dtype), bend)
            check(question, f"hidden {hidden} {name_of(dtype)}")


@every_leg
@every_case
def test_results_are_the_same_every_time(device, case):
    for hidden in middle(case):
        question = ask(case, problem_of(device, hidden))
        first, second = (evaluate(case.op, question) for _ in range(2))
        for name, x in first.items():
            assert torch.equal(x, second[name]), f"{name} at hidden {hidden}"


def rows_apart(x):
    """The same values, with a gap in memory after every row."""
    return torch.cat([x, torch.full_like(x, torch.nan)], -1)[..., : x.shape[-1]] if x.ndim else x


def columns_apart(x):
    """The same values, in every second element of memory."""
    return torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0]


def column_major(x):
    return x.mT.contiguous().mT if x.ndim > 1 else x


def unaligned(x):
    """The same values, one element after the start of an allocation."""
    return torch.cat([x.new_full((1,), torch.nan), x.flatten()])[1:].view(x.shape)


@every_leg
@every_case
@pytest.mark.parametrize(
    "layout", [rows_apart, columns_apart, column_major, unaligned], ids=lambda f: f.__name__
)
def test_any_strides(device, case, layout):
    hidden = middle(case)[0]
    check(ask(case, problem_of(device, hidden)).map(layout), f"hidden {hidden}")


@every_leg
@every_case
def test_expanded_gradients(device, case):
    """Upstream gradients with all strides 0, as ``out.sum().backward()`` passes them."""
    question = ask(case, problem_of(device, middle(case)[0]))
    ones = tuple(torch.ones((), dtype=x.dtype).expand(x.shape) for x in question.upstream)
    check(Question(case, question.inputs, ones))


@every_leg
@every_case
def test_no_rows(device, case):
    question = ask(case, OpProblem(0, middle(case)[0], torch.float32, device))
    found, naive = evaluate(case.op, question), evaluate(case.reference, question)
    for name, x in naive.items():
        torch.testing.assert_close(found[name], x, equal_nan=True, msg=name)


def operators_called(monkeypatch, device, case):
    question = ask(case, problem_of(device, 100 if 100 in case.sizes else middle(case)[0]))
    with recorded(monkeypatch, device) as calls:
        evaluate(case.op, question)
    assert calls, f"{case.name} calls no operator of ours"
    return calls


@every_leg
@every_case
def test_opcheck(device, case, monkeypatch):
    for call in operators_called(monkeypatch, device, case):
        args = call.args
        if not call.is_gradient:
            args = [_leaf(x) for x in args]
        tests = NOT_DIFFERENTIABLE if call.is_gradient else DIFFERENTIABLE
        torch.library.opcheck(call.operator, tuple(args), call.kwargs, test_utils=tests)


@every_leg
@every_case
def test_autocast_ends_at_the_operators(device, case, monkeypatch):
    """Autocast is off inside the operators: the same arguments give the same bits."""
    for call in list(operators_called(monkeypatch, device, case)):
        results = []
        for enabled in (False, True):
            with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=enabled):
                found = call.operator(*call.args, **call.kwargs)
            results.append(found if isinstance(found, (tuple, list)) else [found])
        for plain, cast in zip(*results, strict=True):
            torch.testing.assert_close(cast, plain, rtol=0, atol=0, equal_nan=True)


def _leaf(x):
    return x.detach().requires_grad_() if _is_floating(x) else x


def _is_floating(x):
    return isinstance(x, torch.Tensor) and x.is_floating_point()


@every_leg
@every_case
def test_operators_compute_without_triton(device, case, monkeypatch):
    """Our operators also run without Triton, as an exported program on a CPU needs."""
    for dtype in dtypes_of(device, CASES.index(case)):
        if dtype != torch.float64:
            question = ask(case, problem_of(device, middle(case)[0], dtype))
            with recorded(monkeypatch, device):
                check(question, name_of(dtype))


@every_leg
@every_case
def test_meta_tensors_have_the_real_metadata(device, case, monkeypatch):
    for dtype in FLOATS:
        inputs = case.make_inputs(problem_of(device, middle(case)[0], dtype))
        real = case.op(*inputs)
        fake = case.op(*(x.to("meta") if isinstance(x, torch.Tensor) else x for x in inputs))
        assert _metadata(fake) == _metadata(real)


def _metadata(outputs):
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [(x.shape, x.stride(), x.dtype) for x in outputs]


@pytest.mark.parametrize("through_operators", [False, True], ids=["op", "operators"])
@every_leg
@every_case
def test_compile_without_graph_breaks(device, case, through_operators, monkeypatch):
    if through_operators:
        traced_through_operators(monkeypatch, device)
    torch._dynamo.reset()
    compiled = torch.compile(case.op, fullgraph=True, backend="aot_eager")
    for more_rows in (0, 2):  # the second time, the number of rows is symbolic
        rows, *problem = problem_of(device, middle(case)[0])
        question = ask(case, OpProblem(rows + more_rows, *problem))
        found, eager = evaluate(compiled, question), evaluate(case.op, question)
        for name, x in eager.items():
            torch.testing.assert_close(found[name], x, msg=lambda text, n=name: f"{n}: {text}")


@every_leg
@every_case
def test_export(device, case, monkeypatch):
    traced_through_operators(monkeypatch, device)

    class Op(torch.nn.Module):
        def forward(self, *inputs):
            return case.op(*inputs)

    inputs = case.make_inputs(problem_of(device, middle(case)[0]))
    program = torch.export.export(Op(), inputs)
    assert any("fused_attention" in str(node.target) for node in program.graph.nodes)
    torch.manual_seed(0)
    found = program.module()(*inputs)
    torch.manual_seed(0)
    torch.testing.assert_close(found, case.op(*inputs))


@every_leg
@every_case
def test_derivatives_that_do_not_exist_are_refused(device, case, monkeypatch):
    question = ask(case, problem_of(device, middle(case)[0]))
    with recorded(monkeypatch, device):
        inputs = [_leaf(x) for x in question.inputs]
        outputs = case.op(*inputs)
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        x = next(x for x in inputs if _is_floating(x))
        (gradient,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
        if not case.double_backward:
            with pytest.raises(NotImplementedError, match="double backward"):
                gradient.sum().backward()
        rest = [x.detach() if _is_floating(x) else x for x in question.inputs]
        at = next(i for i, x in enumerate(rest) if _is_floating(x))

        def of_one(x):
            return case.op(*rest[:at], x, *rest[at + 1 :])

        with pytest.raises(NotImplementedError, match="forward-mode"):
            torch.func.jvp(of_one, (rest[at],), (torch.ones_like(rest[at]),))
