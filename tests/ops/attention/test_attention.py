"""`attention` against fp64, within the budget of tests/helpers/budget.py, on every leg.

Mutations caught here (`python -m tests.mutations` runs those in tests/mutation_tables):

    test_output_and_gradients     acc or l_i not rescaled; partial tiles not masked; wrong head of a
        group; strides swapped; dropout forgotten in a gradient; bf16 products left to the
        interpreter; in the torch backend gradients overwritten, additive masks or scores dropped,
        bounds of one sequence used for all, a bottom-right mask run as ATen's top-left one
    test_score_gradients_of_half_...    delta computed from the rounded output
    test_gradient_through_lse_alone     the gradient of the LSE dropped, or left to ATen
    test_tile_sizes_do_not_matter       chunks not rescaled, dk overwritten
    test_dropout_drops_the_same_...     random bits that depend on the tile
    test_bounds_only_save_work          a bound too tight by one, a full block one key too long
    test_nan_in_padding_does_not_leak   V loaded beyond the last key
    test_fully_masked_rows              division by a sum of zero
    test_bias_of_minus_infinity_masks   nonzero weights in fully masked rows
    test_causal_alignments_differ       top left for bottom right
    test_window_of_255_sees_256_keys    an end of the window left out
"""

import math
from dataclasses import replace

import pytest
import torch

import fused_attention as fa

from ...helpers import budget, inputs
from ...helpers.attention_cases import CASES
from ...helpers.rounding import ATEN_HALF_EXP
from ...helpers.stacks import Sizes
from ...helpers.support import (
    FLOATS,
    Launches,
    every_leg,
    forget_bounds,
    name_of,
    over_cases,
    poisoned,
    set_tiles,
)


@over_cases(CASES)
def test_output_and_gradients(device, case, dtype):
    budget.check(case.inputs(dtype, device), **case.options)


@pytest.mark.interpreter
@pytest.mark.parametrize("dim, dim_v", [(257, 8), (8, 257)])
def test_wide_heads_are_not_left_to_the_kernels(dim, dim_v, monkeypatch):
    launches = Launches().watch(monkeypatch)
    q, k, v = (torch.randn(1, 1, 4, d, requires_grad=True) for d in (dim, dim, dim_v))
    fa.attention(q, k, v).sum().backward()
    assert launches.count == 0


@every_leg
def test_unwritten_memory_exceeds_the_budget(device):
    """Poisoned memory works: an unwritten result exceeds every budget."""
    case = inputs.make(Sizes(1, 1, 1, 4, 4, 4, 4), torch.float32, device, lse=False)

    def lazy(q, k, v, variants):
        with torch.no_grad():
            unwritten = torch.empty_like(v)
        return unwritten + 0 * (q + k + v), budget.fused(q, k, v)[1]

    with pytest.raises(AssertionError, match="out: error inf"):
        budget.check(case, attention=lazy)


@every_leg
@pytest.mark.parametrize("stack", ["", "softcap+alibi+causal", "bias+key_padding"])
def test_gradient_through_lse_alone(device, stack):
    case = inputs.make(Sizes(2, 4, 2, 65, 40, 16, 16), torch.float32, device, stack=stack)
    case.do.zero_()
    found = budget.check(case)
    assert found["dq"].any() and not found["dv"].any()
    leaves = [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]
    _, lse = budget.fused(*leaves, inputs.stacks.build(stack, case.tensors))
    for name, gradient in zip("qkv", torch.autograd.grad(lse, leaves, case.dlse), strict=True):
        assert torch.equal(gradient, found[f"d{name}"])


@pytest.mark.parametrize("keys", [48, 700], ids=["one_chunk", "chunks"])
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
def test_score_gradients_of_half_precision_sum_to_zero(dtype, dropout_p, keys):
    """In the torch backend dbias sums to zero over keys: softmax ignores a constant per row.

    The allowed error is that of ATen's LSE; a delta computed from the rounded output errs by more.
    """
    case = inputs.make(Sizes(1, 2, 2, 40, keys, 16, 16), dtype)
    bias = torch.zeros(1, 2, 40, keys, requires_grad=True)  # fp32, for a gradient in fp32
    out = fa.attention(case.q, case.k, case.v, fa.bias(bias), dropout_p=dropout_p)
    (dbias,) = torch.autograd.grad(out, bias, case.do + 3)
    assert (dbias.sum(-1).abs() <= ATEN_HALF_EXP * dbias.abs().sum(-1)).all()


@every_leg
@pytest.mark.parametrize(
    "stack, dropout_p",
    [("causal", 0.0), ("softcap+alibi+causal", 0.3), ("key_padding+bias_shared", 0.0)],
)
def test_repeats_bit_for_bit(device, stack, dropout_p):
    case = inputs.make(Sizes(2, 2, 1, 65, 70, 16, 16), torch.float16, device, stack=stack)
    first, second = (
        budget.evaluate(budget.fused, case, dropout_p=dropout_p, seed=3) for _ in range(2)
    )
    for name in first:
        assert torch.equal(first[name], second[name]), name


@every_leg
@pytest.mark.parametrize("tiles", [(16, 16), (16, 64), (128, 16)])
@pytest.mark.parametrize("case", ["window", "dropout", "bias"])
def test_tile_sizes_do_not_matter(device, tiles, case, monkeypatch):
    stack, options = {
        "window": ("window_both+key_padding", {}),
        "dropout": ("softcap+causal", {"dropout_p": 0.4}),
        "bias": ("bias_keys+document", {}),
    }[case]
    set_tiles(monkeypatch, *tiles)
    shape = Sizes(1, 2, 1, 40, 70, 16, 16)
    budget.check(inputs.make(shape, torch.float32, device, stack=stack), **options)


@every_leg
def test_dropout_drops_the_same_weights_as_the_reference(device, monkeypatch):
    """With v the identity the output is the weights: zeros are where the reference has them."""
    case = inputs.make(Sizes(2, 2, 2, 33, 40, 8, 40), torch.float32, device, stack="causal")
    case.v.copy_(torch.eye(40, device=device).expand_as(case.v))
    kept = []
    for tiles in ((64, 32), (16, 16)):
        set_tiles(monkeypatch, *tiles)
        kept.append(budget.evaluate(budget.fused, case, dropout_p=0.4, seed=5)["out"] != 0)
    reference = budget.evaluate(budget.naive, case, dropout_p=0.4, seed=5)["out"] != 0
    assert torch.equal(kept[0], reference) and torch.equal(kept[1], reference)
    assert not torch.equal(reference[0, 0], reference[0, 1])
    assert not torch.equal(reference[0, 0], reference[1, 0])


@every_leg
@pytest.mark.parametrize("rows, keys", [(129, 65), (65, 129), (65, 95)])
@pytest.mark.parametrize(
    "stack",
    ["causal", "top_left", "window", "window_both", "key_padding", "prefix"],
)
def test_bounds_only_save_work(device, stack, rows, keys, monkeypatch):
    """Results are within the budget with and without bounds: skipped keys have weight zero.

    The lengths put tile edges on, before and after the edges of the masks.
    """
    _check_bounds(device, stack, Sizes(2, 1, 1, rows, keys, 16, 16), monkeypatch)


@every_leg
@pytest.mark.parametrize("stack", ["document", "causal+window_both", "prefix+key_padding"])
def test_bounds_of_compositions_only_save_work(device, stack, monkeypatch):
    _check_bounds(device, stack, Sizes(2, 1, 1, 129, 129, 16, 16), monkeypatch)


def _check_bounds(device, stack, shape, monkeypatch):
    case = inputs.make(shape, torch.float32, device, stack=stack)
    budget.check(case)
    forget_bounds(monkeypatch, inputs.stacks.build(case.stack, case.tensors))
    budget.check(case)


@every_leg
@pytest.mark.parametrize(
    "stack, dtype",
    list(zip(["key_padding", "alibi+causal+key_padding", "key_padding+bias"], FLOATS, strict=True)),
)
def test_nan_in_padding_does_not_leak(device, stack, dtype):
    """NaN in padded keys changes no result, and the gradients of padded keys are zero."""
    clean = inputs.make(Sizes(4, 2, 1, 17, 40, 16, 24), dtype, device, stack=stack)
    lengths = clean.tensors[inputs.stacks.names(stack).index("key_padding")]
    assert lengths.min() == 0 and lengths.max() == 40 and lengths.unique().numel() == 4
    padded = (torch.arange(40, device=device) >= lengths[:, None])[:, None, :, None]

    def fill(k, v):
        return replace(clean, k=clean.k.masked_fill(padded, k), v=clean.v.masked_fill(padded, v))

    expected = budget.check(fill(0, 0))
    for dirty in (fill(torch.nan, torch.inf), fill(-torch.inf, torch.nan)):
        found = budget.evaluate(budget.fused, dirty)
        for name, x in found.items():
            assert torch.equal(x, expected[name]), name
        for name in ("dk", "dv"):
            assert not found[name].masked_fill(~padded, 0).any(), name


@every_leg
def test_fully_masked_rows(device):
    """Fully masked rows, by causal masking or a length of 0: output 0, LSE -inf, zero gradients."""
    length, q_len, k_len = 3, 70, 40
    q = torch.randn(2, 2, q_len, 16, device=device, requires_grad=True)
    k = torch.randn(2, 1, k_len, 16, device=device, requires_grad=True)
    v = torch.randn(2, 1, k_len, 16, device=device, requires_grad=True)
    lengths = torch.tensor([length, 0], device=device)
    stack = (fa.key_padding(lengths), fa.causal())
    with poisoned():
        out, lse = fa.attention(q, k, v, stack, return_lse=True)
        grads = torch.autograd.grad(
            (out, lse), (q, k, v), (torch.randn_like(out), torch.randn_like(lse))
        )
    empty = torch.zeros(2, q_len, dtype=torch.bool, device=device)
    empty[0, : q_len - k_len] = True
    empty[1] = True
    assert not out.movedim(1, 2)[empty].any() and not grads[0].movedim(1, 2)[empty].any()
    assert (lse.movedim(1, 2)[empty] == -torch.inf).all()
    assert lse.movedim(1, 2)[~empty].isfinite().all() and out.isfinite().all()
    assert (out.movedim(1, 2)[~empty] != 0).any(-1).all()
    for grad in grads[1:]:
        assert not grad[0, :, length:].any() and not grad[1].any()
        assert (grad[0, :, :length] != 0).any(-1).all()


@every_leg
def test_bias_of_minus_infinity_masks(device):
    """A bias of -inf in part of a row or all of it equals `mask`, in every gradient."""
    seen = torch.rand(2, 1, 40, 70, device=device) < 0.5
    seen[0, :, 3:9], seen[1] = False, seen[1, :, :1]
    bias = torch.zeros(seen.shape, device=device).masked_fill(~seen, -torch.inf)
    leaves = [torch.randn(2, 2, n, 16, device=device, requires_grad=True) for n in (40, 70, 70)]
    found = []
    for variant in (fa.mask(seen), fa.bias(bias)):
        with poisoned():
            results = fa.attention(*leaves, variant, return_lse=True)
            back = [torch.ones_like(x) for x in results]
            found.append((*results, *torch.autograd.grad(results, leaves, back)))
    assert (found[0][1][0, :, 3:9] == -torch.inf).all()
    for masked, biased in zip(*found, strict=True):
        torch.testing.assert_close(masked, biased)


@every_leg
@pytest.mark.parametrize("stack", ["", "causal", "alibi+window", "bias+key_padding"])
@pytest.mark.parametrize("empty", ["batch", "heads", "rows", "keys"])
def test_empty_sequences(device, stack, empty):
    sizes = {"batch": 2, "heads": 2, "kv_heads": 2, "rows": 5, "keys": 7}
    sizes[empty] = 0
    sizes["kv_heads"] = sizes["heads"]
    if sizes["heads"] == 0 and "alibi" in stack:
        pytest.skip("no slopes for no heads")
    case = inputs.make(Sizes(**sizes, head_dim=8, head_dim_v=4), torch.float32, device, stack=stack)
    for options in ({}, {"dropout_p": 0.5}):
        found = budget.check(case, **options)
        if empty == "keys":
            assert found["out"].shape == (2, 2, 5, 4) and not found["out"].any()
            assert (found["lse"] == -torch.inf).all() and not found["dq"].any()


@every_leg
def test_causal_alignments_differ(device):
    """Two queries, four keys.  Bottom right (flash-attn) aligns the last query with the last key,
    so row 0 sees three keys.  Top left (PyTorch's is_causal) aligns the first ones: it sees one."""
    q = torch.zeros(1, 1, 2, 16, device=device)
    k = torch.zeros(1, 1, 4, 16, device=device)
    v = torch.eye(4, device=device)[None, None]
    bottom_right = fa.attention(q, k, v, fa.causal())[0, 0].cpu()
    top_left = fa.attention(q, k, v, fa.causal(align="top_left"))[0, 0].cpu()
    third = 1 / 3
    torch.testing.assert_close(
        bottom_right, torch.tensor([[third, third, third, 0.0], [0.25, 0.25, 0.25, 0.25]])
    )
    torch.testing.assert_close(top_left, torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0]]))


@every_leg
def test_window_of_255_sees_256_keys(device):
    q, k = torch.zeros(1, 1, 8, 16, device=device), torch.zeros(1, 1, 270, 16, device=device)
    v = torch.ones(1, 1, 270, 1, device=device)
    v[:, :, [7, 8]] = 1025.0  # row i is at position 262 + i and sees the keys from 7 + i
    _, lse = fa.attention(q, k, v, fa.sliding_window(255), return_lse=True)
    torch.testing.assert_close(lse.exp(), torch.full_like(lse, 256))
    out = fa.attention(q, k, v, fa.sliding_window(255))[0, 0, :, 0].cpu()
    torch.testing.assert_close(out, torch.tensor([9.0, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    "stack",
    ["", "causal", "softcap+alibi+causal", "bias+key_padding", "bend+sink", "bias_keys+window"],
)
@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
def test_gradcheck(stack, dropout_p):
    """Against finite differences, through output and LSE, for q, k, v, slopes and biases."""
    case = inputs.make(Sizes(2, 2, 1, 3, 4, 2, 3), torch.float64, stack=stack).double()
    tensors = [x for x in case.tensors if x is not None and x.is_floating_point()]

    def call(q, k, v, *floats):
        torch.manual_seed(1)
        floats = iter(floats)
        arguments = [
            next(floats) if x is not None and x.is_floating_point() else x for x in case.tensors
        ]
        variants = inputs.stacks.build(stack, arguments)
        out, lse = fa.attention(q, k, v, variants, dropout_p=dropout_p, return_lse=True)
        return out, lse.masked_fill(lse.isinf(), 0)

    leaves = [x.clone().requires_grad_() for x in (case.q, case.k, case.v, *tensors)]
    assert torch.autograd.gradcheck(call, leaves)


@every_leg
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_follows_the_active_dtype(device, dtype):
    case = inputs.make(Sizes(1, 2, 1, 33, 40, 16, 16), torch.float32, device, stack="causal")

    def leaves():
        return [x.detach().requires_grad_() for x in (case.q, case.k, case.v)]

    under, cast = leaves(), leaves()
    with torch.autocast(device, dtype=dtype):
        out, lse = fa.attention(*under, fa.causal(), return_lse=True)
    expected, expected_lse = fa.attention(
        *(x.to(dtype) for x in cast), fa.causal(), return_lse=True
    )
    assert out.dtype == dtype and lse.dtype == torch.float32
    assert torch.equal(out, expected) and torch.equal(lse, expected_lse)
    do = case.do.to(dtype)
    for x, y in zip(
        torch.autograd.grad(out, under, do), torch.autograd.grad(expected, cast, do), strict=True
    ):
        assert x.dtype == torch.float32 and torch.equal(x, y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_error_of_aten_exponential_in_half_precision(dtype):
    """Justifies rounding.ATEN_HALF_EXP; if ATen improves so that this fails, remove both."""
    q, k = torch.zeros(1, 1, 1, 16, dtype=dtype), torch.zeros(1, 1, 64, 16, dtype=dtype)
    _, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, k)
    assert 1e-5 < (lse.double() - math.log(64)).abs().item() < ATEN_HALF_EXP
