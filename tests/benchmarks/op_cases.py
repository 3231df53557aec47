"""Ops that the harness must measure or survive, named as module:name."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from fused_attention.testing import OpCase, OpProblem

MIB = 2**20
ALLOCATED = 200 * MIB


def _traffic(problem: OpProblem, backward: bool) -> int:
    """Two passes over x forward, three backward."""
    return (3 if backward else 2) * problem.rows * problem.hidden * problem.dtype.itemsize


def _arithmetic(problem: OpProblem, backward: bool) -> int:
    return problem.rows * problem.hidden


double = OpCase(
    name="double",
    op=lambda x: x + x,
    reference=lambda x: x * 2,
    make_inputs=lambda p: (p.normal(p.rows, p.hidden),),
    flops=_arithmetic,
    bytes=_traffic,
)
sum_and_norm = replace(
    double,
    name="sum_and_norm",
    op=lambda x, y: (x + y, F.rms_norm(x + y, x.shape[-1:])),
    reference=lambda x, y: (y + x, F.rms_norm(x + y, x.shape[-1:])),
    make_inputs=lambda p: (p.normal(p.rows, p.hidden), p.normal(p.rows, p.hidden, stream=1)),
)
pick = replace(
    double,
    name="pick",
    op=F.cross_entropy,
    reference=F.cross_entropy,
    make_inputs=lambda p: (p.normal(p.rows, p.hidden), torch.arange(p.rows) % p.hidden),
)
wrong = replace(double, op=lambda x: x * 2.001)
wrong_gradient = replace(double, op=lambda x: (x * 2).detach() + (x - x.detach()))
wrong_gradient_of_sum = replace(
    sum_and_norm,
    op=lambda x, y: ((x + y).detach() + x - x.detach(), F.rms_norm(x + y, x.shape[-1:])),
)
is_not_a_number = replace(double, op=lambda x: x * float("nan"))
slow = replace(double, op=lambda x: sum((x / 64 for _ in range(128)), x * 0))
hungry = replace(double, op=lambda x: x * 2 + torch.ones(ALLOCATED // 4)[0] - 1)


def _out_of_memory(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] < 100 else torch.ones(2**50)


beyond_torch = replace(double, reference=_out_of_memory)
drops = replace(
    double,
    op=lambda x: x * (torch.rand(x.shape, dtype=torch.float32) > 0.5).to(x.dtype),
    reference=lambda x: x * (torch.rand(x.shape, dtype=torch.float32) > 0.5),
)
