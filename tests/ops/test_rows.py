"""A row of a fused op has the same bits whatever other rows there are, forward and backward.

There are two exceptions.  The matrix product of `linear_cross_entropy` is that of a library: see
its tests.  On a CPU the activations are PyTorch's, which computes GELU and SiLU by different
instructions in different places of a tensor, and in tensors of different sizes.

Seen failing on: the statistics of a norm computed over all rows of a program.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch

import fused_attention as fa
from fused_attention.testing import CASES, OpCase, OpProblem, gelu, glu

from ..helpers.op_budget import Question, ask, evaluate
from ..helpers.support import LEGS, dtypes_of, name_of

# No other dimension is 37.
ROWS, HIDDEN = 37, 100


def by_row(case: OpCase) -> OpCase:
    """The case with a loss for each row instead of their mean."""
    if case.op is not fa.cross_entropy:
        return case
    functions = (partial(f, reduction="none") for f in (case.op, case.reference))
    return replace(case, **dict(zip(("op", "reference"), functions, strict=True)))


INDEPENDENT = [by_row(case) for case in CASES if not case.name.startswith("linear_")]
ACTIVATIONS = [case.name for case in (*gelu.CASES, *glu.CASES)]


def over_cases():
    """Parametrize over device and case: activations on Triton only."""
    return pytest.mark.parametrize(
        "device, case",
        [
            pytest.param(leg.values[0], case, id=f"{case.name}-{leg.id}", marks=leg.marks)
            for leg in LEGS
            for case in INDEPENDENT
            if leg.id != "torch" or case.name not in ACTIVATIONS
        ],
    )


def has_rows(x: torch.Tensor, count: int = ROWS) -> bool:
    return count in x.shape


def with_others(question: Question, others: Question) -> Question:
    """A question with the rows of both, those of the first first."""
    inputs, upstream = (
        tuple(
            torch.cat((x, y), x.shape.index(ROWS)) if has_rows(x) else x
            for x, y in zip(ours, theirs, strict=True)
        )
        for ours, theirs in (
            (question.inputs, others.inputs),
            (question.upstream, others.upstream),
        )
    )
    return Question(question.case, inputs, upstream)


@over_cases()
def test_a_row_does_not_depend_on_the_others(device, case):
    for dtype in dtypes_of(device, INDEPENDENT.index(case)):
        alone, others = (ask(case, OpProblem(ROWS, HIDDEN, dtype, device, seed)) for seed in (0, 1))
        found = evaluate(case.op, alone)
        together = evaluate(case.op, with_others(alone, others))
        compared = [name for name, x in found.items() if has_rows(x)]
        assert "d0" in compared and "out0" in compared
        for name in compared:
            dim = found[name].shape.index(ROWS)
            ours = together[name].narrow(dim, 0, ROWS)
            assert torch.equal(ours, found[name]), f"{name} {name_of(dtype)}"
