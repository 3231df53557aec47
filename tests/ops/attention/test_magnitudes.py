"""Attention on numbers of any magnitude: rows of huge scores, tiny and huge inputs, NaN, infinity.

Seen failing on: weights recomputed from one number per row, the LSE (gradients n times too large in
a row masked by -1e9); scores multiplied by log2(e) before the maximum is subtracted (overflow below
-2.4e38); weights above 1 (gradients of 1e23); ATen's kernel believed where a score is infinite
(zeros for NaN in half precision).
"""

import math
import random
from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

import fused_attention as fa
from fused_attention.kernels.softmax import weights
from fused_attention.ops.attention import statistics
from fused_attention.ops.paged import torch_decode

from ...helpers import budget, inputs, paged
from ...helpers.paged import PagedCase
from ...helpers.stacks import Sizes
from ...helpers.support import FLOATS, LEGS, every_leg, set_tiles, thinned

# The interpreter computes with NumPy, which warns of infinities.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
LOWEST = torch.finfo(torch.float32).min
CONSTANTS = (0.0, -1e4, -1e9, -2.5e38, LOWEST, 1e9, 1e30, 3e38, 1e-30)


def exact_rows(dtype, device, *, rows=9, keys=40, lse=True) -> inputs.Inputs:
    """Scores that are numbers of fp32: a constant per row, of any magnitude, or twice it.

    Every row has its own constant, so that ordinary and extreme rows share tiles.
    """
    sizes = Sizes(2, 4, 2, rows, keys, 16, 16)
    case = inputs.make(sizes, dtype, device, stack="bias", lse=lse)
    generator = torch.Generator().manual_seed(0)
    constants = torch.tensor(CONSTANTS).repeat(-(-rows // len(CONSTANTS)))[:rows, None]
    twice = torch.rand(2, 4, rows, keys, generator=generator) < 0.2
    bias = torch.where(twice, 2 * constants, constants).clamp(LOWEST, -LOWEST)
    bias = bias.to(device)
    return replace(case, q=torch.zeros_like(case.q), tensors=[bias], exact=True)


OPTIONS = {"": {}, "no_lse": {}, "negative_scale": {"scale": -3.0}, "dropout": {"dropout_p": 0.3}}


@thinned("name, dtype", tuple(OPTIONS), FLOATS)
def test_rows_of_any_magnitude(device, name, dtype):
    budget.check(exact_rows(dtype, device, lse=name != "no_lse"), **OPTIONS[name])


@every_leg
@pytest.mark.parametrize("keys", [17, 100])
def test_rows_of_any_magnitude_in_several_tiles(device, keys, monkeypatch):
    set_tiles(monkeypatch, 16, 32)
    budget.check(exact_rows(torch.float32, device, rows=20, keys=keys))


# Scores as they may come out of a product of other tiles: off by rounding, if they are huge.
RECOMPUTED = [-math.inf, 1e10 - 1024, 1e10, 1e10 + 1024, math.nan]
EXPECTED = [0.0, 0.0, 0.5, 0.5, math.nan]  # of a row with the maximum 1e10 and the sum 2


def test_weights_are_at_most_one():
    found = statistics.weights(torch.tensor([RECOMPUTED]), torch.tensor([[1e10, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([EXPECTED]), rtol=0, atol=0, equal_nan=True)


@triton.jit
def _weights_kernel(s_ptr, out_ptr, m, log_sum, SIZE: tl.constexpr):
    offs = tl.arange(0, SIZE)
    tl.store(out_ptr + offs, weights(tl.load(s_ptr + offs), 1.0, m, log_sum))


@pytest.mark.parametrize("device", LEGS[1:])
def test_weights_are_at_most_one_on_triton(device):
    """The rounding of the score above the maximum may only cost the logarithm of the sum."""
    scores = torch.tensor([*RECOMPUTED, 0.0, 0.0, 0.0], device=device)
    found = torch.empty_like(scores)
    _weights_kernel[(1,)](scores, found, 1e10, 1.0, SIZE=8)
    assert found[:3].tolist() == EXPECTED[:3]
    assert found[3] == 1 and found[4].isnan()


@every_leg
@pytest.mark.parametrize("value", [-1e9, LOWEST])
def test_a_masked_row_spreads_its_gradient_evenly(device, value):
    q, k, v = (torch.randn(1, 2, 64, 16, device=device, requires_grad=True) for _ in range(3))
    bias = torch.zeros(64, 64, device=device)
    bias[5] = value
    out = fa.attention(q, k, v, fa.bias(bias))
    (dv,) = torch.autograd.grad(out[:, :, 5].sum(), v)
    assert ((dv - 1 / 64).abs() <= 2**-24).all()


@every_leg
@pytest.mark.parametrize("value", [-1e9, LOWEST, 1e9])
@pytest.mark.parametrize("keys", [65, 200])
def test_splits_of_huge_scores_count_their_keys(device, value, keys):
    """Splits and pages of different lengths: all scores are equal, so the output is the mean."""
    problem = paged.make(PagedCase(((1, keys), (3, keys - 40)), 2, 1), torch.float32, device)
    problem.q.zero_()
    distances = torch.full((2, keys), value, device=device)
    problem = replace(problem, tensors=[distances], case=replace(problem.case, stack="past_bias"))
    means = [v.mean(0) for _, v in problem.stored]
    for splits in (None, 3):
        out, _ = problem.attend(num_splits=splits)
        for row, sequence in enumerate((0, 1, 1, 1)):
            assert ((out[row] - means[sequence]).abs() <= 2**-20).all()


def test_pages_of_huge_scores_count_their_keys(monkeypatch):
    """Pages read in place are merged by their LSE, unless it is too large for that."""
    monkeypatch.setattr(torch_decode, "_BYTES_A_CALL", 0)
    problem = paged.make(PagedCase(((1, 97),), 2, 1, stack=""), torch.float32)
    problem.q.fill_(1e4)
    problem.kv[:, 0] = 1e4
    out, _ = problem.attend()
    assert ((out[0] - problem.stored[0][1].mean(0)).abs() <= 2**-20).all()


STACKS = (
    *("", "causal", "window", "key_padding", "document", "mask", "logit"),
    *("bias", "bias_rows", "bias_keys", "causal+bias", "alibi", "alibi_batch", "alibi+causal"),
    *("softcap", "softcap+bias_heads", "softcap+key_padding"),
)


def scaled_case(seed: int, dtype, most: int):
    """Inputs of random shapes, each tensor times a power of ten, and the options of `attention`.

    Most tensors are scaled by 1e-30 to 1e30, in fp16 by 1e-2 to 1e2.  There is no gradient of the
    LSE: where scores are huge, that of the reference loses its digits, in fp64 too.
    """
    draw = random.Random(seed)
    decades = 2 if dtype == torch.float16 else 30
    kv_heads, head_dim = draw.choice([1, 2]), draw.choice([1, 5, 16, 64])
    lengths = sorted(draw.choice([1, 3, 17, 64, 65, 130]) for _ in range(2))
    rows, keys = (min(most, length) for length in lengths)
    stack = draw.choice(STACKS)
    if "document" not in stack and draw.random() < 0.5:
        rows, keys = keys, rows
    heads = kv_heads * draw.choice([1, 1, 2, 3])
    shape = Sizes(draw.choice([1, 2]), heads, kv_heads, rows, keys, head_dim, head_dim)
    kind = "normal" if dtype == torch.float16 else draw.choice(["normal", "constant", "large"])
    case = inputs.make(shape, dtype, stack=stack, kind=kind, lse=False, seed=seed)

    def scaled(x):
        return x * 10.0 ** draw.uniform(-decades, decades) if draw.random() < 0.7 else x

    changed = {name: scaled(getattr(case, name)) for name in ("q", "k", "v", "do")}
    tensors = [scaled(x) if x is not None and x.is_floating_point() else x for x in case.tensors]
    options = {"scale": draw.choice([1.0, -0.5, 0.0])} if draw.random() < 0.3 else {}
    options |= {"dropout_p": 0.3} if draw.random() < 0.2 else {}
    return replace(case, **changed, tensors=tensors), options


def within_range(case: inputs.Inputs, options) -> bool:
    """Whether results, and all sums on the way, are numbers of the dtype in naive attention too."""
    most = torch.finfo(case.q.dtype).max
    case = case.double()
    group = case.q.shape[1] // case.k.shape[1]
    q, do = case.q.abs(), case.do.abs()
    k, v = (x.abs().repeat_interleave(group, 1) for x in (case.k, case.v))
    dp = do @ v.mT
    ds = 2 * dp.amax(-1, keepdim=True).expand_as(dp)
    slopes = ds * max(dp.shape[2:])  # the gradient of an ALiBi slope has a distance as a factor
    sums = [q @ k.mT, ds @ k, ds.mT @ q, do.sum(2), slopes.sum((2, 3)) * dp.shape[0] * dp.shape[1]]
    sums += [x.abs() for x in case.tensors if x is not None and x.is_floating_point()]
    sums += [
        x.nan_to_num(neginf=0) for x in budget.evaluate(budget.naive, case, **options).values()
    ]
    return all(x.abs().le(most).all() for x in sums)


def check_random_magnitudes(seeds, most):
    """At least half of the cases are within range, and those are within their budget."""
    judged = 0
    for seed in seeds:
        case, options = scaled_case(seed, FLOATS[seed % len(FLOATS)], most)
        if within_range(case, options):
            judged += 1
            budget.check(case, **options)
    assert 2 * judged >= len(seeds)


@pytest.mark.parametrize("part", range(4))
def test_random_magnitudes(part):
    check_random_magnitudes(range(100 * part, 100 * part + 100), most=130)


@pytest.mark.interpreter
def test_random_magnitudes_interpreted():
    check_random_magnitudes(range(15), most=33)
