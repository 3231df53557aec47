"""Every variant alone and composed with others, on every leg, and the checks of arguments.

Mutations caught here: an argument's gradient not summed over its broadcast dimensions, and hooks
applied in the wrong order, by test_alone_and_composed; score gradients taken at the raw scores,
by test_order_of_scores_matters_and_is_kept.
"""

import math
import sys

import pytest
import torch

import fused_attention as fa
from fused_attention.variants import base

from ..helpers import budget, custom_variants, inputs
from ..helpers.stacks import PARTS, Sizes
from ..helpers.support import every_leg

COMPANY = (
    "alibi+causal",
    "causal+softcap",
    "softcap+bias_heads",
    "alibi+bias_shared+window",
    "bias+bias",
    "causal+key_padding+mask",
    "document+causal+softcap",
    "stripes+window_both",
    "bend+sink+prefix",
    "sink+softcap+alibi_batch+top_left",
    "softcap+relative+gate+bend+window",
)
SHAPE = Sizes(2, 2, 1, 33, 70, 8, 16)


@every_leg
@pytest.mark.parametrize("stack", [*PARTS, *COMPANY])
def test_alone_and_composed(device, stack):
    """Output, LSE and all gradients, including those of slopes, biases and custom arguments."""
    budget.check(inputs.make(SHAPE, torch.float32, device, stack=stack))


@every_leg
def test_order_of_scores_matters_and_is_kept(device):
    """softcap(bias(s)) differs from bias(softcap(s)), and each agrees with the reference."""
    outs = [
        budget.check(inputs.make(SHAPE, torch.float32, device, stack=stack))["out"]
        for stack in ("bias_heads+bend+softcap", "bend+bias_heads+softcap", "softcap+bend")
    ]
    assert (outs[0] - outs[1]).abs().max() > 0.01


@every_leg
def test_masks_apply_after_all_scores(device):
    """Masks apply after all scores, wherever they stand: softcap would turn -inf into -cap."""
    q, k, v = (torch.randn(1, 1, n, 16, device=device) for n in (5, 40, 40))
    masks_first = (fa.sliding_window(2), fa.softcap(1.0))
    first = fa.attention(q, k, v, masks_first)
    assert torch.equal(first, fa.attention(q, k, v, masks_first[::-1]))
    torch.testing.assert_close(first, fa.reference.attention(q, k, v, masks_first[::-1]).out)
    v[:, :, :33] = 1e6  # keys outside every window: the rows are at positions 35 to 39
    assert torch.equal(first, fa.attention(q, k, v, masks_first))


@every_leg
def test_one_variant_is_a_stack_of_one(device):
    q = torch.randn(1, 1, 20, 8, device=device)
    assert torch.equal(fa.attention(q, q, q, fa.causal()), fa.attention(q, q, q, [fa.causal()]))


@every_leg
def test_the_same_argument_twice(device):
    """The gradient of a tensor that two variants share is the sum over both."""
    q, k, v = (torch.randn(1, 2, 9, 8, device=device) for _ in range(3))
    bias = torch.randn(1, 2, 9, 9, device=device)
    once = (2 * bias).requires_grad_()
    twice = bias.clone().requires_grad_()
    fa.attention(q, k, v, fa.bias(once)).square().sum().backward()
    fa.attention(q, k, v, (fa.bias(twice), fa.bias(twice))).square().sum().backward()
    torch.testing.assert_close(twice.grad, 2 * once.grad)


@every_leg
@pytest.mark.parametrize("name", ["lengths", "mask", "ids"])
def test_strided_and_broadcast_arguments(device, name):
    """Strided lengths in int32, a transposed mask, strided ids: each as its contiguous copy."""
    q, k, v = (torch.randn(2, 2, n, 8, device=device) for n in (20, 40, 40))
    if name == "lengths":
        tensor = torch.tensor([7, -1, 33, -1], device=device, dtype=torch.int32)[::2]
        same = torch.tensor([7, 33], device=device)
        make = fa.key_padding
    elif name == "mask":
        tensor = torch.rand(40, 2, device=device).T[:, None, None] < 0.5
        same = tensor.expand(2, 2, 20, 40).contiguous()
        make = fa.mask
    else:
        tensor = (torch.arange(80, device=device) // 14)[::2]
        same = tensor.to(torch.int32).expand(2, 40).contiguous()
        make = fa.document
    found = fa.attention(q, k, v, make(tensor))
    assert torch.equal(found, fa.attention(q, k, v, make(same)))
    reference = fa.reference.attention(q, k, v, make(same)).out
    torch.testing.assert_close(found, reference)


def test_encoding_round_trip():
    """A stack encoded as a string, tensors and floats decodes to equal variants and types."""
    slopes, lengths = torch.rand(2), torch.tensor([3, 4])
    stack = (
        fa.softcap(2.5),
        fa.sliding_window(7, 1),
        fa.alibi(slopes),
        fa.key_padding(lengths),
        fa.causal(align="top_left"),
        custom_variants.SINK(torch.rand(1, 2, 1, 4), 0.5),
    )
    spec, tensors, scalars = base.encode(stack)
    assert scalars == [2.5, 7.0, 1.0, 0.5] and len(tensors) == 3
    back = base.decode(spec, tensors, scalars)
    assert [x.type for x in back] == [x.type for x in stack]
    for x, y in zip(back, stack, strict=True):
        assert len(x.args) == len(y.args)
        for arg, original in zip(x.args, y.args, strict=True):
            assert type(arg) is type(original)
            same = torch.equal(arg, original) if torch.is_tensor(arg) else arg == original
            assert same
    assert base.decode(*base.encode(())) == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tanh_is_fast", [True, False])
def test_softcap_is_accurate_by_either_formula(monkeypatch, dtype, tanh_is_fast):
    """Both formulas are accurate from tanh(x) = x to tanh(x) = 1; the CPU decides which is used."""
    monkeypatch.setattr(
        sys.modules["fused_attention.variants.softcap"], "_TANH_IS_FAST", tanh_is_fast
    )
    variant = fa.softcap(30.0)
    size = torch.logspace(-30, 30, 601, dtype=dtype)
    s = torch.cat([-size, size, torch.zeros(1, dtype=dtype)])
    exact = torch.tensor([30 * math.tanh(x / 30) for x in s.tolist()], dtype=torch.float64)
    with torch.no_grad():
        found = variant.torch_score(s, *(None,) * 6)
    error = (found.double() - exact).abs()
    assert (error <= 4 * torch.finfo(dtype).eps * exact.abs()).all()


def test_alibi_slopes_are_the_papers():
    """n a power of two: 2^(-8i/n).  Otherwise those of the power below n, then every other one of
    the power above."""
    torch.testing.assert_close(fa.alibi_slopes(8), 2.0 ** -torch.arange(1.0, 9))
    torch.testing.assert_close(fa.alibi_slopes(16), 2.0 ** (-torch.arange(1.0, 17) / 2))
    odd = torch.tensor([2.0**-i for i in range(1, 9)] + [2.0 ** (-i / 2) for i in (1, 3, 5, 7)])
    torch.testing.assert_close(fa.alibi_slopes(12), odd)
    torch.testing.assert_close(fa.alibi_slopes(1), torch.tensor([2.0**-8]))


def test_arguments_of_other_types_are_refused():
    with pytest.raises(TypeError, match=r"test_stripes: argument 0 must be a tensor.*got str"):
        custom_variants.STRIPES("3")


@every_leg
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("keys", [12, 70])
def test_lengths_of_any_size(device, dtype, keys):
    """A length that no int32 holds is not taken for another: beyond the keys are all, or none."""
    least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    values = {least, -(2**32) + 3, -1, 0, 3, keys + 1, 2**31 - 1, 2**31, 2**32 + 3, most}
    lengths = sorted(value for value in values if least <= value <= most)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(len(lengths), 1, n, 8, generator=generator).to(device) for n in (5, keys, keys)
    )
    q.requires_grad_()
    out = fa.attention(q, k, v, fa.key_padding(torch.tensor(lengths, dtype=dtype, device=device)))
    small = torch.tensor([min(max(n, 0), keys) for n in lengths], device=device)
    expected = fa.attention(q, k, v, fa.key_padding(small))
    assert torch.equal(out, expected)
    gradients = (torch.autograd.grad(x.square().sum(), q)[0] for x in (out, expected))
    assert torch.equal(*gradients)


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**62, 2**63, 10**30])
def test_ints_that_an_operator_cannot_carry_are_refused(number):
    with pytest.raises(ValueError, match=r"argument 0 must be an int from -2\*\*53 to 2\*\*53"):
        custom_variants.STRIPES(number)


@every_leg
def test_softcap_keeps_the_digits_of_its_derivative(device):
    """Each row sees scores x and 0: dq is p (1 - p) / cosh²(x), accurate where tanh is near one."""
    x = torch.logspace(-3, 1.6, 60, device=device)
    q = torch.cat([x, -x]).reshape(1, 1, -1, 1).requires_grad_()
    k = torch.tensor([1.0, 0.0], device=device).reshape(1, 1, 2, 1)
    out = fa.attention(q, k, k, fa.softcap(1.0), scale=1.0)
    (dq,) = torch.autograd.grad(out.sum(), q)
    exact = q.detach().double()
    p = exact.tanh().sigmoid()
    exact = p * (1 - p) / exact.cosh().square()
    # exp2 has the relative error of its argument's rounding, which grows with x.
    eps = torch.finfo(torch.float32).eps
    assert ((dq / exact - 1).abs() <= eps * (8 + 4 * q.detach().abs())).all()
