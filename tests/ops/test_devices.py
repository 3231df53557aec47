"""Kernels are launched on the GPU that holds the tensors, which need not be the current one.

Seen failing on: an operator that runs on the current device, a launch outside of an operator.
"""

import contextlib

import pytest
import torch

import fused_attention as fa
from fused_attention.ops import backend, registration
from fused_attention.testing import CASES, OpProblem

OPERATORS = sorted(
    name.removeprefix("fused_attention::")
    for name in torch._C._dispatch_get_all_op_names()
    if name.startswith("fused_attention::") and "." not in name
)


class OnGPU:
    """Stands for a tensor on a GPU."""

    is_cuda = True

    def __init__(self, index: int) -> None:
        self.index = index

    def get_device(self) -> int:
        return self.index


@pytest.fixture
def current(monkeypatch):
    """The current device, as torch.cuda's guards exchange it."""
    device = [0]

    def exchange(index):
        before, device[0] = device[0], index
        return before

    monkeypatch.setattr(torch.cuda, "_exchange_device", exchange)
    monkeypatch.setattr(torch.cuda, "_maybe_exchange_device", exchange)
    return device


@pytest.mark.parametrize("index", [0, 1, 3])
def test_an_operator_runs_on_the_device_of_its_first_argument(current, index):
    run = registration._isolated(lambda x, y: current[0])
    assert run(OnGPU(index), OnGPU(5)) == index
    assert current == [0]


def test_the_device_is_given_back_after_an_error(current):
    def fails(x):
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        registration._isolated(fails)(OnGPU(1))
    assert current == [0]


def test_operators_are_listed():
    assert {"attention", "attention_backward", "norm", "rotary", "paged_append"} <= set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_first_argument_is_a_tensor(name):
    schema = getattr(torch.ops.fused_attention, name).default._schema
    assert str(schema.arguments[0].type) == "Tensor"


@pytest.fixture
def launches(monkeypatch):
    """Makes CPU tensors the kernels' and records, for each launch, whether it was guarded."""
    jit = pytest.importorskip("triton.runtime.jit")
    guards, found = [0], []

    @contextlib.contextmanager
    def guard(x):
        guards[0] += 1
        yield
        guards[0] -= 1

    monkeypatch.setattr(registration, "_device_of", guard)
    monkeypatch.setattr(backend, "uses_triton", lambda *tensors: True)
    monkeypatch.setattr(fa.tuning, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(
        jit.JITFunction, "run", lambda self, *args, **kwargs: found.append(guards[0] > 0)
    )
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_launch_of_the_fused_ops_is_guarded(launches, case):
    inputs = case.make_inputs(OpProblem(3, case.sizes[-3], torch.float32, "cpu"))
    inputs = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]
    outputs = case.op(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
    assert launches and all(launches)


def test_every_launch_of_attention_is_guarded(launches):
    q, k, v = (torch.randn(1, 2, 17, 16, requires_grad=True) for _ in range(3))
    bias = torch.zeros(1, 2, 17, 17, requires_grad=True)
    fa.attention(q, k, v, (fa.bias(bias), fa.causal())).sum().backward()
    assert len(launches) == 5 and all(launches)


def test_every_launch_of_the_paged_ops_is_guarded(launches):
    kv = torch.zeros(2, 2, 16, 1, 16)
    x = torch.randn(3, 1, 16)
    fa.paged_append(x, x, kv, torch.arange(3))
    table, lengths = torch.zeros(1, 1, dtype=torch.int32), torch.tensor([3], dtype=torch.int32)
    starts = torch.tensor([0, 3], dtype=torch.int32)
    fa.paged_attention(x, kv, table, lengths, starts, num_splits=2)
    fa.copy_blocks(kv, torch.tensor([[0, 1]]))
    assert len(launches) == 4 and all(launches)
