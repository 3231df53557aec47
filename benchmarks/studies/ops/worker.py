"""Measures one point of an op, in a process of its own."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fused_attention.testing import OpCase, OpProblem

from ...harness import errors, isolate, memory, timing
from . import providers, table
from .point import OpPoint

BUDGET_S = {"cpu": 0.7, "cuda": 0.5}
COMPARED = 2**20
WARM_UP_ROWS = 64
OUT_STREAM = 100
BYTES = (
    "the memory traffic that every implementation has at least: each input read once and each "
    "output written once"
)
ERROR = (
    "max |x - fp64| over max |torch - fp64|, torch in the same dtype: the worst of outputs and "
    f"gradients, on as many rows as make {COMPARED:,} numbers"
)
SPEEDUP = (
    "the time of torch eager over that of the provider, called in turn in one process: the median "
    "over the rounds, with the 95 % interval of that median"
)


@dataclass(frozen=True)
class Task:
    """The call that is measured: an op on its inputs, with or without its backward pass."""

    call: Callable
    inputs: tuple[torch.Tensor, ...]
    d_outs: tuple[torch.Tensor, ...]  # empty: forward alone

    def __call__(self) -> tuple[torch.Tensor, ...]:
        """The outputs, and with `d_outs` the gradient of every floating input."""
        if not self.d_outs:
            with torch.no_grad():
                return _tuple(self.call(*self.inputs))
        inputs = [x.detach().requires_grad_(x.is_floating_point()) for x in self.inputs]
        outs = _tuple(self.call(*inputs))
        leaves = [x for x in inputs if x.requires_grad]
        gradients = torch.autograd.grad(outs, leaves, self.d_outs)
        return (*(out.detach() for out in outs), *gradients)

    def double(self) -> "Task":
        """The same task in fp64."""
        inputs = tuple(x.double() if x.is_floating_point() else x for x in self.inputs)
        return Task(self.call, inputs, tuple(x.double() for x in self.d_outs))


def measure(point: OpPoint) -> dict:
    """Measures peak memory, then time in turns with torch eager, then error."""
    on_cuda = point.device == "cuda"
    if not on_cuda:
        memory.limit_to_available()
    case, problem = table.find(point.op), point.problem
    prepared = providers.find(point.provider)(case, problem)
    backward = point.mode != "forward"
    inputs, d_outs = _tensors(case, problem, backward)
    task, rival = (Task(call, inputs, d_outs) for call in (prepared.call, case.reference))
    if prepared.compiled or on_cuda:
        task()
    else:
        _load_kernels(case, prepared.call, problem, backward)
    peak = memory.peak(task, point.device)
    peak.pop("result")
    alone = point.provider == providers.BASELINE or not isolate.has_memory_for(rival)
    calls = (task,) if alone else (task, rival)
    rounds = timing.rounds(calls, point.device, point.repeats, "cold", BUDGET_S[point.device])
    numbers = timing.quantiles([times[0] for times in rounds])
    ratio = _error(case, prepared.call, problem, backward)
    seconds = numbers["time_ms"] / 1e3
    return {
        **numbers,
        **timing.speedup(rounds, providers.BASELINE),
        **memory.columns(peak),
        "gbytes_per_s": _total(case.bytes, problem, backward) / seconds / 1e9,
        "tflops": _total(case.flops, problem, backward) / seconds / 1e12,
        **errors.columns(ratio),
        "threads": torch.get_num_threads(),
    }


def _tensors(case: OpCase, problem: OpProblem, backward: bool) -> tuple[tuple, tuple]:
    """The inputs, and with `backward` the gradients of the outputs."""
    inputs = tuple(case.make_inputs(problem))
    if not backward:
        return inputs, ()
    # Fake tensors have shapes alone: the reference may need more memory than there is.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        outs = _tuple(case.reference(*(mode.from_tensor(x) for x in inputs)))
    return inputs, tuple(
        problem.normal(*out.shape, stream=OUT_STREAM + i, dtype=out.dtype)
        for i, out in enumerate(outs)
    )


def _load_kernels(case: OpCase, call: Callable, problem: OpProblem, backward: bool) -> None:
    """Loads code with a call too small to show in the peak that is measured next."""
    small = problem._replace(rows=min(problem.rows, WARM_UP_ROWS))
    Task(call, *_tensors(case, small, backward))()


def _total(count: Callable[[OpProblem, bool], int], problem: OpProblem, backward: bool) -> int:
    return count(problem, False) + (count(problem, True) if backward else 0)


def _error(case: OpCase, call: Callable, problem: OpProblem, backward: bool) -> float:
    rows = max(1, COMPARED // problem.hidden)
    task = Task(call, *_tensors(case, problem._replace(rows=min(rows, problem.rows)), backward))
    plain = replace(task, call=case.reference)
    exact, naive, found = (_drawn_alike(task) for task in (plain.double(), plain, task))
    scale = max(x.abs().max().item() for x in exact)
    return max(errors.ratio(*tensors, scale) for tensors in zip(found, naive, exact, strict=True))


def _drawn_alike(task: Task) -> tuple[torch.Tensor, ...]:
    """The results with a fixed seed, so that dropout drops the same elements in each task."""
    torch.manual_seed(0)
    return task()


def _tuple(out: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (out,) if isinstance(out, torch.Tensor) else tuple(out)
