"""`paged_append` and `copy_blocks`: what they write, where, and that they write nothing else.

Mutations caught here (`python -m tests.mutations` runs those in tests/mutation_tables):

    test_tokens_land_in_their_slots     k and v swapped; block and offset of a slot swapped; a token
        without a slot stored
    test_quantized_numbers_are_the_...  rounding to the wrong number; no saturation
    test_scales_fit_each_token          scales written beside their slot
    test_blocks_are_copied              source and destination swapped; the end of a block left out
"""

import math

import pytest
import torch

import fused_attention as fa

from ...helpers import paged
from ...helpers.paged import LARGEST, PagedCase
from ...helpers.support import every_leg

SCALINGS = pytest.mark.parametrize("scaling", ["head", "token"])
EIGHT_BITS = pytest.mark.parametrize("storage", LARGEST, ids=lambda d: str(d).split(".")[1])


def tokens(count, heads, dim, dtype=torch.float32, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, heads, dim, generator=generator).to(device, dtype) for _ in "kv"]


def dequantized(x, scales):
    return x.double() * scales[..., None].double()


def raw(x):
    """The bits as integers, so that NaN compares equal."""
    return x.contiguous().view(torch.uint8)


def pool(num_blocks, page_size, heads, dim, dtype, device, filler=math.nan):
    return torch.full((num_blocks, 2, page_size, heads, dim), filler).to(dtype).to(device)


@every_leg
@pytest.mark.parametrize("heads, dim, page_size", [(1, 64, 16), (3, 80, 48), (40, 128, 16)])
@pytest.mark.parametrize(
    "dtype, storage",
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.float32, torch.bfloat16),
    ],
    ids=str,
)
def test_tokens_land_in_their_slots(device, dtype, storage, heads, dim, page_size):
    """Tokens are written to their slots, and every other slot keeps its NaN bitwise."""
    k, v = tokens(5, heads, dim, dtype, device)
    kv = pool(4, page_size, heads, dim, storage, device)
    expected = kv.clone()
    slots = [3 * page_size + 7, 0, page_size - 1, 2 * page_size, -1]
    fa.paged_append(k, v, kv, torch.tensor(slots, device=device))
    for token, slot in enumerate(slots):
        if slot >= 0:
            at = expected[slot // page_size, :, slot % page_size]
            at[0], at[1] = k[token].to(storage), v[token].to(storage)
    assert torch.equal(raw(kv), raw(expected))


@every_leg
def test_tokens_and_caches_of_any_strides(device):
    k, v = tokens(3, 2, 32, device=device)
    packed = torch.full((3, 4, 2, 40), math.nan, device=device)
    packed[:, 1, :, 8:], packed[:, 3, :, 8:] = k, v
    layers = torch.full((2, 16, 3, 2, 2, 32), math.nan, device=device)
    kv = layers[:, :, 1].transpose(1, 2)
    fa.paged_append(
        packed[:, 1, :, 8:], packed[:, 3, :, 8:], kv, torch.tensor([17, 2, 31], device=device)
    )
    assert torch.equal(kv[1, 0, 1], k[0]) and torch.equal(kv[0, 1, 2], v[1])
    assert torch.equal(kv[1, 1, 15], v[2])
    assert layers.isfinite().sum() == k.numel() + v.numel()


@every_leg
@EIGHT_BITS
def test_quantized_numbers_are_the_nearest(device, storage):
    """Rounding errs by at most half a step, ties go to even, and large numbers saturate."""
    most = LARGEST[storage]
    steps = torch.arange(-most * 4, most * 4 + 1) / 4  # every tie of int8, many of e4m3
    tiny = torch.arange(-80, 81) * 2.0**-11  # around e4m3's subnormals, ties included
    x = torch.cat([steps, tiny, torch.tensor([2 * most, -3 * most, 0.0, -0.0])])
    x = torch.nn.functional.pad(x, (0, -len(x) % 64)).reshape(-1, 1, 64).to(device)
    slots = torch.arange(x.shape[0], device=device)
    kv = pool(-(-len(x) // 16), 16, 1, 64, storage, device, filler=0)
    scales = torch.tensor([[1.0], [0.5]], device=device)
    fa.paged_append(x, x * 0.5, kv, slots, scales)
    wanted = x.clamp(-most, most)
    wanted = (wanted.round() if storage == torch.int8 else wanted).to(storage).float()
    for side in range(2):
        assert torch.equal(kv[:, side].flatten(0, 1)[: len(x)].float(), wanted)


@every_leg
@EIGHT_BITS
def test_scales_fit_each_token(device, storage):
    """The scale maps a head's largest number to the dtype's; errors are half a step at most."""
    k, v = tokens(3, 5, 80, torch.float16, device)
    k[1, 2] = 0
    v[2, 4] *= 2.0**-10
    kv = pool(2, 16, 5, 80, storage, device, filler=127)
    scales = torch.full((2, 2, 16, 5), math.nan, device=device)
    fa.paged_append(k, v, kv, torch.tensor([20, -1, 3], device=device), scales)
    assert scales.isfinite().sum() == 2 * 2 * 5
    for token, (block, offset) in ((0, (1, 4)), (2, (0, 3))):
        for side, x in enumerate((k, v)):
            worth = scales[block, side, offset]
            largest = x[token].float().abs().amax(-1)
            torch.testing.assert_close(worth * LARGEST[storage], largest)
            found = dequantized(kv[block, side, offset], worth)
            error = (found - x[token].double()).abs()
            assert (error <= half_step(x[token].double(), worth.double(), storage)).all()


@every_leg
@EIGHT_BITS
@SCALINGS
def test_zeros_stay_zeros(device, storage, scaling):
    """With any scale, 0 too."""
    k, v = tokens(1, 2, 16, device=device)
    k[0, 0] = v[0, 1] = 0
    kv = pool(1, 16, 2, 16, storage, device, filler=0)
    scales = scales_of(scaling, kv)
    if scaling == "head":
        scales[0, 0] = scales[1, 1] = 0
    fa.paged_append(k, v, kv, torch.tensor([0], device=device), scales)
    found = dequantized(kv[0, :, 0], scales if scaling == "head" else scales[0, :, 0])
    assert not found[0, 0].any() and not found[1, 1].any() and found.isfinite().all()


@every_leg
@EIGHT_BITS
@SCALINGS
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("side", [0, 1], ids="kv")
def test_what_is_not_finite_is_read_back_as_nan(device, storage, scaling, value, side):
    """In the output of the heads that read it and in no other; the rest is stored bit for bit.

    The number is in the last of 20 keys of head 1 of the second of two sequences.
    """
    clean = tokens(2 * 20, 2, 16, device=device)
    changed = [x.clone() for x in clean]
    changed[side][-1, 1, 5] = value
    slots = torch.arange(40, device=device)
    slots += 12 * (slots >= 20)
    (kv, scales), (kv_changed, scales_changed) = (
        written(k, v, slots, storage, scaling, device) for k, v in (clean, changed)
    )
    other = torch.ones(kv.shape[:4], dtype=torch.bool, device=device)
    other[51 // 16, side, 51 % 16, 1] = False
    assert torch.equal(raw(kv)[other], raw(kv_changed)[other])
    if scaling == "token":
        assert torch.equal(scales[other], scales_changed[other])
    out, changed_out = (attended(*args) for args in ((kv, scales), (kv_changed, scales_changed)))
    lost = changed_out.isnan()
    expected = torch.zeros_like(lost)
    # Query heads 2 and 3 read head 1.  A value is one channel of the output, or with its scale all.
    expected[1, 2:, 5 if side == 1 and scaling == "head" else slice(None)] = True
    assert torch.equal(lost, expected)
    assert out.isfinite().all() and changed_out.isfinite()[~lost].all()
    assert torch.equal(out[0], changed_out[0])


def scales_of(scaling, kv):
    """Scales per head for normal numbers, or room for scales per token."""
    if scaling == "head":
        return torch.full((2, kv.shape[3]), 4 / LARGEST[kv.dtype], device=kv.device)
    return torch.ones(kv.shape[:4], device=kv.device)


def written(k, v, slots, storage, scaling, device):
    kv = pool(4, 16, 2, 16, storage, device, filler=0)
    scales = scales_of(scaling, kv)
    fa.paged_append(k, v, kv, slots, scales)
    return kv, scales


def attended(kv, scales):
    """The output of one query of each of two sequences, (2, 4, 16)."""
    (q, _) = tokens(2, 4, 16, device=kv.device, seed=1)
    table, lengths, ends = (
        torch.tensor(x, dtype=torch.int32, device=kv.device)
        for x in ([[0, 1], [2, 3]], [20, 20], [0, 1, 2])
    )
    return fa.paged_attention(q, kv, table, lengths, ends, scales=scales)


def half_step(x, scales, storage):
    """The largest error of a stored number: half the distance between its neighbors."""
    if storage == torch.int8:
        error = (scales / 2)[..., None].expand_as(x)
    else:
        error = torch.maximum(x.abs() * 2.0**-4, scales[..., None] * 2.0**-10)
    return error * (1 + 2.0**-20)  # the scale and the quotient are rounded to fp32


@every_leg
@EIGHT_BITS
def test_attention_to_quantized_tokens_within_its_budget(device, storage):
    """Attention to a quantized cache against attention to the original keys and values.

    Let ε be the error of a stored number (`half_step`).  Then the score of query i and key j errs
    by at most Δ = scale Σ_d |q_id| ε_jd, and a weight by a factor of at most exp(2 max_j Δ), so

        |lse - exact| <= max_j Δ
        |out - exact| <= exp(2 max_j Δ) Σ_j w_j ε_jd + (exp(2 max_j Δ) - 1) Σ_j w_j |v_jd|

    in addition to the budget of attention to the stored values.
    """
    lens = ((2, 40), (1, 17))
    case = PagedCase(lens, 4, 2, 64, storage=storage, scaling="token")
    problem = paged.make(case, torch.float32, device)
    for index, (_, keys) in enumerate(lens):
        k, v = tokens(keys, 2, 64, device=device, seed=index)
        row = problem.block_table[index].long()
        position = torch.arange(keys, device=device)
        slots = row[position // 16] * 16 + position % 16
        fa.paged_append(k, v, problem.kv, slots, problem.scales)
        errors, stored = [], []
        for side, x in enumerate((k, v)):
            worth = problem.scales[:, side].flatten(0, 1)[slots]
            held = problem.kv[:, side].flatten(0, 1).float()[slots]
            stored.append(dequantized(held, worth))
            errors.append(half_step(x.double(), worth.double(), storage))
        problem.stored[index] = tuple(stored)
        _check_quantized(problem, index, k.double(), v.double(), *errors)


def _check_quantized(problem, index, k, v, k_error, v_error):
    out, lse = problem.attend()
    ends = problem.cu_seqlens_q.tolist()
    own = slice(ends[index], ends[index + 1])
    k, v, k_error, v_error = (
        x.repeat_interleave(2, 1).transpose(0, 1) for x in (k, v, k_error, v_error)
    )
    q = problem.q[own].double().transpose(0, 1)  # (H, M, D)
    found = fa.reference.attention(q[None], k[None], v[None], fa.causal(), return_weights=True)
    _, allowed = paged.allowances(problem, index)
    weights = found.weights[0]
    off = (q.abs() @ k_error.mT / 8).masked_fill(weights == 0, 0).amax(-1, keepdim=True)
    factor = torch.exp(2 * off)
    budget = factor * (weights @ v_error) + (factor - 1) * (weights @ v.abs()) + allowed["out"]
    assert ((out[own].transpose(0, 1).double() - found.out[0]).abs() <= budget).all()
    budget = off[..., 0] + allowed["lse"]
    assert ((lse[own].mT.double() - found.lse[0]).abs() <= budget).all()


@every_leg
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, *LARGEST], ids=str)
@pytest.mark.parametrize("shape", [(2, 16, 3, 80), (2, 16, 3)], ids=["kv", "scales"])
def test_blocks_are_copied(device, dtype, shape):
    generator = torch.Generator().manual_seed(0)
    kv = (torch.randn(6, *shape, generator=generator) * 9).to(dtype).to(device)
    expected = kv.clone()
    raw_expected = expected.view(torch.uint8) if dtype in LARGEST else expected
    raw_expected[4], raw_expected[0] = raw_expected[1].clone(), raw_expected[5].clone()
    fa.copy_blocks(kv, torch.tensor([[1, 4], [5, 0]], device=device))
    assert torch.equal(raw(kv), raw(expected))
    fa.copy_blocks(kv, torch.empty(0, 2, dtype=torch.int64, device=device))
    assert torch.equal(raw(kv), raw(expected))


@every_leg
def test_no_tokens(device):
    k, v = tokens(0, 2, 32, device=device)
    kv = pool(2, 16, 2, 32, torch.float32, device)
    fa.paged_append(k, v, kv, torch.empty(0, dtype=torch.int64, device=device))
    assert kv.isnan().all()
