"""NaN and infinity in the inputs of attention give what they give in naive attention.

Seen failing on: ATen's kernel believed in half precision (zeros for NaN); an LSE of NaN for a score
of +inf; weights of 0 instead of NaN in backward for such a row.
"""

import math

import pytest
import torch

from ...helpers import budget, inputs, paged
from ...helpers.paged import PagedCase
from ...helpers.stacks import Sizes
from ...helpers.support import FLOATS, thinned

# The interpreter computes with NumPy, which warns of infinities.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
VALUES = (math.nan, math.inf, -math.inf)


def kinds(x):
    """0 for a finite number, 1 for +inf, 2 for -inf, 3 for NaN."""
    return x.isposinf() + 2 * x.isneginf() + 3 * x.isnan()


@thinned("stack, dtype, value", ("", "bias", "softcap+alibi"), FLOATS, VALUES)
def test_one_element(device, stack, dtype, value):
    """Without a mask: the same elements of every result are NaN, +inf, -inf or finite."""
    for name in ("q", "k", "v", *inputs.stacks.argument_names(stack)[: stack == "bias"]):
        case = inputs.make(Sizes(2, 2, 1, 20, 33, 16, 16), dtype, device, stack=stack)
        spoiled = case.tensors[0] if "bias" in name else getattr(case, name)
        spoiled[1, 0, 7, 3] = value
        expected = budget.evaluate(budget.naive, case)
        found = budget.evaluate(budget.fused, case)
        assert stack or not found["out"].isfinite().all()
        for result, x in found.items():
            same = kinds(x) == kinds(expected[result])
            assert same.all(), f"{name}, {result}: {(~same).sum()} of {x.numel()} differ"


@thinned("stack, dtype", ("causal", "document", "softcap+window"), FLOATS)
def test_what_sees_it_and_what_does_not(device, stack, dtype):
    """Output and dq are NaN in rows that see a key of NaN; other sequences are untouched.

    Rows that do not see the key may be NaN, as 0 · NaN is in naive attention.
    """
    case = inputs.make(Sizes(2, 2, 1, 33, 33, 16, 16), dtype, device, stack=stack)
    clean = budget.evaluate(budget.fused, case)
    case.k[1, 0, 12, 3] = math.nan
    found = budget.evaluate(budget.fused, case)
    variants = inputs.stacks.build(stack, case.tensors)
    b, h, row, key = (
        torch.arange(n, device=device).view([-1 if d == i else 1 for d in range(4)])
        for i, n in enumerate((2, 2, 33, 33))
    )
    masks = [v.torch_mask(b, h, row, key, 33, 33) for v in variants if v.type.mask is not None]
    sees = torch.stack([m.expand(2, 2, 33, 33) for m in masks]).all(0)[1, :, :, 12]
    assert sees.any() and not sees.all()
    for name in ("out", "dq"):
        assert found[name][1][sees].isnan().all(), name
        assert torch.equal(found[name][0], clean[name][0]), name
    assert found["lse"][1][sees].isnan().all()
    assert torch.equal(kinds(found["lse"][1][~sees]), kinds(clean["lse"][1][~sees]))


@thinned("stack, dtype, value", ("causal", "softcap+causal"), FLOATS, VALUES)
def test_paged(device, stack, dtype, value):
    """A decoding sequence and a chunk of several rows see the value; a third sequence does not."""
    case = PagedCase(((1, 33), (3, 20), (1, 40)), stack=stack, page_size=16)
    problem = paged.make(case, dtype, device)
    for sequence in (0, 1):
        block = problem.block_table[sequence, 0]
        problem.kv[block, 0, 5, 1, 3] = value
        problem.stored[sequence][0][5, 1, 3] = value
    for splits in (None, 3):
        out, lse = problem.attend(num_splits=splits)
        for index in range(3):
            rows = slice(*problem.cu_seqlens_q[index : index + 2].tolist())
            expected = budget.naive(*_arguments(problem.dense(index)))
            for x, y in zip((out[rows], lse[rows]), expected, strict=True):
                assert torch.equal(kinds(x), kinds(y[0].transpose(0, 1)))


def _arguments(case: inputs.Inputs):
    return case.q, case.k, case.v, inputs.stacks.build(case.stack, case.tensors)
