"""Every activation from the smallest numbers to the largest, forward and backward.

Seen failing on: PyTorch's derivative of the tanh GELU, NaN beyond 1e19; x² overflowing in the
derivative of the kernels.
"""

from dataclasses import replace

import pytest
import torch

from fused_attention.testing import OpCase, OpProblem, gelu, glu

from ...helpers.op_budget import Question, check
from ...helpers.support import LEGS, dtypes_of, name_of, runs_triton

ACTIVATIONS = (*gelu.CASES, *glu.CASES)
every_activation = pytest.mark.parametrize("case", ACTIVATIONS, ids=lambda case: case.name)
# Terms of the series of erf, exp and tanh, as in test_parity.
SERIES = 16
# From here on every activation is x or 0, and PyTorch's own derivative may overflow.
FAR = 1e6


def rounded_once(case: OpCase) -> OpCase:
    """The case with its reference computed in fp64 whatever the dtype."""

    def reference(*inputs):
        return case.reference(*(x.double() for x in inputs)).to(inputs[0].dtype)

    return replace(case, reference=reference)


def magnitudes(dtype: torch.dtype, device: str):
    """Powers of 1000 from the smallest normal numbers on, and the largest number.

    Smaller numbers in bf16 Triton's interpreter reads wrong.  Half of the largest number on PyTorch
    operations: beyond, PyTorch's exact GELU is infinite.
    """
    info = torch.finfo(dtype)
    largest = info.max if runs_triton(device) else info.max / 2
    size = 4 * info.tiny
    while size < largest:
        yield size
        size *= 1000
    yield largest


@pytest.mark.parametrize("device", LEGS)
@every_activation
def test_every_magnitude_within_its_budget(device, case):
    for dtype in dtypes_of(device, ACTIVATIONS.index(case)):
        if dtype == torch.float64:  # is the oracle
            continue
        problem = OpProblem(2, 32, dtype, device)
        drawn = case.make_inputs(problem)
        upstream = problem.normal(2, 32, stream=7).clamp(-1, 1)
        for size in magnitudes(dtype, device):
            judged = rounded_once(case) if size > FAR else case
            for sign in (1, -1):
                x = sign * size * (drawn[0].sigmoid() / 2 + 0.25)
                rest = (other.clamp(-1, 1) for other in drawn[1:])
                question = Question(judged, (x, *rest), (upstream,))
                check(question, f"{sign * size:.0e} {name_of(dtype)}", SERIES)
