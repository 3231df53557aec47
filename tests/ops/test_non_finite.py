"""NaN and infinities in one element of each input of every fused op of the table of cases.

Every output and gradient is NaN or infinite exactly where the reference's is, and the rest is
within the budget of `op_budget`.  NaN stays NaN, and an output is infinite where the reference's
is; in gradients, whether infinities that meet make NaN depends on the order of the sums.

Seen failing on: dropout that drops NaN, a derivative of tanh that is 1 at infinity.
"""

import math
from collections.abc import Iterator

import pytest
import torch

from fused_attention.testing import CASES, OpProblem

from ..helpers.op_budget import Question, ask, check, evaluate
from ..helpers.support import LEGS, dtypes_of, name_of

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_leg = pytest.mark.parametrize("device", LEGS)
values = pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
# One row in five of the losses is ignored, from the fourth on.
ROWS, HIDDEN = 3, 64


def poisoned(question: Question, value: float) -> Iterator[tuple[str, Question]]:
    """The question with ``value`` at a random place of one input or upstream gradient, each."""
    generator = torch.Generator().manual_seed(0)
    for kind, tensors in (("input", question.inputs), ("upstream", question.upstream)):
        for position, x in enumerate(tensors):
            if not x.is_floating_point():
                continue
            place = int(torch.randint(x.numel(), (), generator=generator))
            changed = x.flatten().index_fill(0, torch.tensor(place, device=x.device), value)
            replaced = (*tensors[:position], changed.view(x.shape), *tensors[position + 1 :])
            parts = (
                (replaced, question.upstream) if kind == "input" else (question.inputs, replaced)
            )
            yield f"{kind} {position}", Question(question.case, *parts)


@every_leg
@every_case
@values
def test_non_finite_values_propagate_as_in_the_reference(device, case, value):
    for dtype in dtypes_of(device, CASES.index(case)):
        problem = OpProblem(ROWS, HIDDEN, dtype, device)
        for where, question in poisoned(ask(case, problem), value):
            where = f"{value} in {where} {name_of(dtype)}"
            found = check(question, where)
            references = [evaluate(case.reference, q) for q in (question, question.double())]
            for name, x in found.items():
                if math.isinf(value) and name.startswith("d"):
                    continue
                wanted = [kinds(reference[name]) for reference in references]
                agreed = wanted[0] == wanted[1]  # PyTorch's GELU of infinity is NaN in fp32
                assert torch.equal(kinds(x)[agreed], wanted[0][agreed]), f"{where}: {name}"


def kinds(x: torch.Tensor) -> torch.Tensor:
    """0 for numbers, 1 and -1 for infinities, 2 for NaN."""
    return torch.where(x.isnan(), 2, x.isposinf().int() - x.isneginf().int())


@every_leg
@every_case
def test_what_the_reference_computes_without_nan_stays_bit_for_bit(device, case):
    """A NaN in one row changes no bit of another, forward or backward."""
    dtype = dtypes_of(device, CASES.index(case))[0]
    clean = ask(case, OpProblem(ROWS, HIDDEN, dtype, device))
    expected, found = (evaluate(f, clean) for f in (case.reference, case.op))
    untouched = 0
    for where, question in poisoned(clean, math.nan):
        reference, changed = (evaluate(f, question) for f in (case.reference, case.op))
        for name, x in changed.items():
            same = reference[name] == expected[name]
            untouched += int(same.sum())
            assert torch.equal(x[same], found[name][same]), f"NaN in {where}: {name}"
    assert untouched
