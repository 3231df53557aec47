"""The implementations of an op: one function each, which takes an `OpCase` and its `OpProblem`.

It returns what to call on the case's inputs, or raises Unsupported with the reason.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fused_attention.testing import OpCase, OpProblem

from ...harness.isolate import Unsupported
from ...harness.lookup import lookup

LIGER = "liger_kernel"


@dataclass(frozen=True)
class PreparedOp:
    """call(*inputs) -> output or outputs; `compiled` if the first call compiles."""

    call: Callable
    compiled: bool = False


def eager(case: OpCase, problem: OpProblem) -> PreparedOp:
    return PreparedOp(case.reference)


def compiled(case: OpCase, problem: OpProblem) -> PreparedOp:
    return PreparedOp(torch.compile(case.reference, dynamic=False), compiled=True)


def fused(case: OpCase, problem: OpProblem) -> PreparedOp:
    return PreparedOp(case.op)


def liger(case: OpCase, problem: OpProblem) -> PreparedOp:
    if case.liger is None:
        raise Unsupported(f"Liger has no {case.name}")
    if not has_liger():
        raise Unsupported(f"{LIGER} is not installed")
    if problem.device == "cpu":
        raise Unsupported("Liger's kernels need a GPU")
    return PreparedOp(case.liger)


def has_liger() -> bool:
    return importlib.util.find_spec(LIGER) is not None


BASELINE = "torch"
OURS = "fused"
PROVIDERS: dict[str, Callable[[OpCase, OpProblem], PreparedOp]] = {
    BASELINE: eager,
    "compile": compiled,
    "liger": liger,
    OURS: fused,
}


def find(name: str) -> Callable[[OpCase, OpProblem], PreparedOp]:
    """A provider by name; ValueError if there is none."""
    return lookup("provider", name, PROVIDERS)
