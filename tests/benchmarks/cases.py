"""Ops for tests, named as module:name: what the harness must measure or survive."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from benchmarks.cases import Case


def _passes(count):
    return lambda p, backward: (
        count[backward] * p.rows * p.hidden * torch.empty((), dtype=p.dtype).element_size()
    )


def _arithmetic(problem, backward):
    return (2 if backward else 1) * problem.rows * problem.hidden


double = Case(
    name="double",
    op=lambda x: x + x,
    reference=lambda x: x * 2,
    make_inputs=lambda p: (p.normal(p.rows, p.hidden),),
    flops=_arithmetic,
    bytes=_passes((2, 2)),
)
sum_and_norm = Case(
    name="sum_and_norm",
    op=lambda x, y: (x + y, F.rms_norm(x + y, x.shape[-1:])),
    reference=lambda x, y: (y + x, F.rms_norm(x + y, x.shape[-1:])),
    make_inputs=lambda p: (p.normal(p.rows, p.hidden), p.normal(p.rows, p.hidden, stream=1)),
    flops=_arithmetic,
    bytes=_passes((4, 4)),
)
picks = Case(
    name="picks",
    op=lambda x, index: F.cross_entropy(x, index),
    reference=lambda x, index: F.cross_entropy(x, index),
    make_inputs=lambda p: (
        p.normal(p.rows, p.hidden),
        torch.arange(p.rows, device=p.device) % p.hidden,
    ),
    flops=_arithmetic,
    bytes=_passes((1, 2)),
)
wrong = replace(double, name="wrong", op=lambda x: x * 2.001)
is_not_a_number = replace(double, name="nan", op=lambda x: x * float("nan"))
slow = replace(double, name="slow", op=lambda x: sum((x / 64 for _ in range(128)), x * 0))
hungry = replace(double, name="hungry", op=lambda x: x * 2 + torch.ones(200 * 2**20).mean() * 0)
refuses = replace(double, name="refuses", reference=double.reference)


def out_of_torchs_reach(*inputs):
    raise MemoryError
