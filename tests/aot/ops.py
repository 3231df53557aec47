"""Every fused op compiled ahead of time, from the table of cases: forward and backward.

An op is called on CPU tensors as if they were on a GPU; its launches are recorded and compiled.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch

from fused_attention.testing import CASES, OpCase, OpProblem

from . import compiler

ROWS = 33


class CompiledProblem(NamedTuple):
    """An op at a hidden size, whose launches are compiled for every target."""

    op: str
    dtype: str
    hidden: int

    def __str__(self):
        return f"{self.op}-{self.dtype}-h{self.hidden}"

    @property
    def case(self) -> OpCase:
        (case,) = (case for case in CASES if case.name == self.op)
        return case

    @property
    def contiguous(self) -> bool:
        """Whether every row is aligned to 16 bytes, and Triton can tell from the hidden size."""
        return self.hidden % 16 == 0


class Launched(NamedTuple):
    """The kernel that a problem launches at ``position`` in its sequence of launches."""

    problem: CompiledProblem
    kernel: str
    position: int

    def __str__(self):
        return f"{self.problem}: {self.kernel}"


def problems(target: str) -> list[CompiledProblem]:
    """bf16 at a size that fits in a tile and at the largest; on sm_90 also fp32 at an odd size."""
    table = []
    for case in CASES:
        even = [size for size in case.sizes if size % 16 == 0]
        short = min(8192, max(even))
        table += [
            CompiledProblem(case.name, "bfloat16", size) for size in sorted({short, max(even)})
        ]
        if target == "sm_90":
            odd = max((size for size in case.sizes if size % 16 and size <= 4096), default=short)
            table.append(CompiledProblem(case.name, "float32", odd))
    return table


def launches(problem: CompiledProblem, target: str, rows: int = ROWS):
    """The launches of forward and backward of a problem: (kernel, arguments, keywords)."""
    inputs = problem.case.make_inputs(
        OpProblem(rows, problem.hidden, getattr(torch, problem.dtype), "cpu")
    )
    inputs = [x.requires_grad_() if x.is_floating_point() else x for x in inputs]
    with as_if_on(target), compiler.recorded_launches() as found:
        outputs = problem.case.op(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
    return found


@contextlib.contextmanager
def as_if_on(target: str):
    """Send CPU tensors to the Triton kernels, tuned for ``target``."""
    from fused_attention import tuning
    from fused_attention.ops import backend

    before = backend.uses_triton, tuning.architecture
    backend.uses_triton = lambda *tensors: True
    tuning.architecture = lambda device: target
    try:
        yield
    finally:
        backend.uses_triton, tuning.architecture = before


def jobs(problems: list[CompiledProblem], target: str) -> list[tuple[Launched, str]]:
    """Every kernel that the problems launch; those with the same binary are listed once."""
    found = {}
    for problem in problems:
        for position, launch in enumerate(launches(problem, target)):
            launched = Launched(problem, launch[0].__name__, position)
            found.setdefault(compiled_for(launch, target), (launched, target))
    return list(found.values())


def compiled_for(launch, target: str) -> str:
    """The key of a compiled kernel: launches with equal keys share a binary."""
    return f"{launch[0].__name__} {compiler.bound(launch, target)}"


def inspect(launched: Launched, target: str) -> compiler.Report:
    launch = launches(launched.problem, target)[launched.position]
    return compiler.inspect_launch(launched, target, launch)
