"""`scaled_dot_product_attention` against torch's, on torch's own samples and others.

Seen failing on: bottom-right for top-left, GQA heads interleaved instead of grouped, a boolean
mask inverted, the mask's gradient dropped, the scale ignored.
"""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing._internal.common_methods_invocations import op_db

import fused_attention as fa

OPINFO = next(op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def naive(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """The formula of torch's documentation, with zero output for fully masked rows."""
    if enable_gqa:
        group = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(group, -3) for x in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        scores = scores + attn_mask
    allowed = torch.ones(scores.shape[-2:], dtype=torch.bool)
    allowed = allowed.tril() if is_causal else allowed
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        allowed = allowed & attn_mask
    scores = scores.masked_fill(~allowed, -math.inf)
    empty = (scores == -math.inf).all(-1, keepdim=True)
    return scores.masked_fill(empty, 0).softmax(-1).masked_fill(empty, 0) @ value


def run(function, args, kwargs, dtype):
    """Output and the gradient of every floating tensor, computed in ``dtype``."""

    def leaf(x):
        if not isinstance(x, torch.Tensor):
            return x
        x = x.detach().clone()
        return x.to(dtype).requires_grad_() if x.is_floating_point() else x

    args = [leaf(x) for x in args]
    kwargs = {name: leaf(x) for name, x in kwargs.items()}
    out = function(*args, **kwargs)
    tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
    leaves = [x for x in tensors if x.requires_grad]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out.dtype)
    return [out, *torch.autograd.grad(out, leaves, weights)]


def compare(*args, dtype, **kwargs):
    """Compare ours with torch in fp64, within twice the error of `naive` in ``dtype`` and a band.

    The band: outputs are rounded to ``dtype``, and the backward pass computes exp(score - lse)
    from rounded scores, which changes a weight by their magnitude times their precision.
    """
    ours = run(fa.scaled_dot_product_attention, args, kwargs, dtype)
    plain = run(naive, args, kwargs, dtype)
    exact = run(F.scaled_dot_product_attention, args, kwargs, torch.float64)
    again = run(naive, args, kwargs, torch.float64)
    query, key = (x.to(dtype).double() for x in args[:2])
    held = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    scale = kwargs.get("scale") or query.shape[-1] ** -0.5
    largest = (
        1 + abs(scale) * query.norm(dim=-1).amax() * key.norm(dim=-1).amax()
        if key.numel() and query.numel()
        else 1
    )
    for x, y, true, same in zip(ours, plain, exact, again, strict=True):
        torch.testing.assert_close(same, true, rtol=1e-9, atol=1e-9)
        assert x.shape == true.shape and x.dtype == dtype
        if true.numel() == 0:
            continue
        band = (2 * torch.finfo(dtype).eps + 2 * held * largest) * true.abs().max().clamp(min=1)
        assert (x - true).abs().max() <= 2 * (y - true).abs().max() + band


def tensors(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
def test_opinfo_samples(dtype):
    samples = list(OPINFO.sample_inputs("cpu", dtype, requires_grad=False))
    assert len(samples) >= 25
    for sample in samples:
        args = (sample.input, *sample.args)
        if sample.kwargs["dropout_p"] == 0:
            compare(*args, dtype=dtype, **sample.kwargs)
        else:
            out = fa.scaled_dot_product_attention(*args, **sample.kwargs)
            assert out.shape == F.scaled_dot_product_attention(*args, **sample.kwargs).shape
            assert out.isfinite().all() and (out != 0).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads, kv_heads", [(4, 1), (6, 2), (8, 8), (7, 7)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_grouped_heads(dtype, heads, kv_heads, is_causal):
    q, k, v = tensors((2, heads, 17, 16), (2, kv_heads, 33, 16), (2, kv_heads, 33, 16))
    compare(q, k, v, dtype=dtype, is_causal=is_causal, enable_gqa=True)


MASKS = [(5, 9), (1, 9), (5, 1), (3, 5, 9), (2, 1, 1, 9), (1, 3, 5, 9), (2, 3, 5, 9)]


@pytest.mark.parametrize("shape", MASKS, ids=str)
@pytest.mark.parametrize("kind", ["bool", "float", "infinite"])
def test_masks_broadcast(shape, kind):
    q, k, v = tensors((2, 3, 5, 8), (2, 3, 9, 8), (2, 3, 9, 8))
    (mask,) = tensors(shape)
    if kind == "bool":
        mask = mask > -1
    elif kind == "infinite":
        mask = torch.where(mask > -1, 0.0, -math.inf)
    for dtype in (torch.float32, torch.float64):
        compare(q, k, v, dtype=dtype, attn_mask=mask)


def test_fully_masked_rows_are_zero():
    q, k, v = tensors((1, 2, 5, 8), (1, 2, 9, 8), (1, 2, 9, 8))
    mask = torch.ones(5, 9, dtype=torch.bool)
    mask[2] = False
    compare(q, k, v, dtype=torch.float32, attn_mask=mask)
    assert (fa.scaled_dot_product_attention(q, k, v, mask)[:, :, 2] == 0).all()


SHAPES = [
    ((5, 8), (9, 8), (9, 8)),
    ((3, 5, 8), (3, 9, 8), (3, 9, 8)),
    ((3, 5, 8), (2, 3, 9, 8), (2, 3, 9, 8)),
    ((2, 1, 5, 8), (2, 3, 9, 8), (1, 3, 9, 8)),
    ((2, 4, 3, 5, 8), (2, 4, 3, 9, 8), (2, 4, 3, 9, 8)),
    ((2, 1, 3, 5, 8), (4, 3, 9, 8), (3, 9, 8)),
    ((2, 3, 5, 8), (2, 3, 9, 8), (2, 3, 9, 4)),
    ((1, 2, 5, 300), (1, 2, 9, 300), (1, 2, 9, 300)),
    ((0, 2, 5, 8), (0, 2, 9, 8), (0, 2, 9, 8)),
    ((2, 2, 0, 8), (2, 2, 9, 8), (2, 2, 9, 8)),
    ((2, 2, 5, 8), (2, 2, 0, 8), (2, 2, 0, 8)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("is_causal", [False, True])
def test_shapes(shapes, is_causal):
    q, k, v = tensors(*shapes)
    if is_causal and q.ndim == 2:
        pytest.skip("torch's own needs three dimensions for is_causal")
    compare(q, k, v, dtype=torch.float32, is_causal=is_causal)


NO_WIDTH = [
    ((2, 3, 5, 0), (2, 3, 9, 0), (2, 3, 9, 4)),
    ((2, 3, 5, 0), (2, 3, 9, 0), (2, 3, 9, 0)),
    ((2, 3, 5, 8), (2, 3, 9, 8), (2, 3, 9, 0)),
    ((5, 0), (9, 0), (9, 4)),
    ((1, 2, 5, 0), (1, 2, 9, 0), (1, 2, 9, 300)),
]


@pytest.mark.parametrize("shapes", NO_WIDTH, ids=str)
@pytest.mark.parametrize("given", ["nothing", "causal", "bool", "float", "scale"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_heads_of_no_width_give_the_mean_of_the_visible_values(shapes, given, dtype):
    q, k, v = (x.requires_grad_() for x in tensors(*shapes, dtype=dtype))
    (mask,) = tensors((5, 9), dtype=dtype)
    mask = mask if given == "float" else mask > -0.5 if given == "bool" else None
    scale = 3.0 if given == "scale" else None
    out = fa.scaled_dot_product_attention(q, k, v, mask, is_causal=given == "causal", scale=scale)
    weights = torch.zeros(5, 9, dtype=torch.float64)
    if given == "causal":
        weights = weights.masked_fill(~torch.ones(5, 9, dtype=torch.bool).tril(), -math.inf)
    elif given == "bool":
        weights = weights.masked_fill(~mask, -math.inf)
    elif given == "float":
        weights = mask.double()
    if q.shape[-1]:
        weights = weights + (q.double() @ k.double().mT) * (scale or q.shape[-1] ** -0.5)
    expected = weights.softmax(-1) @ v.double()
    assert out.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    gradients = torch.autograd.grad(out.sum(), (q, k, v))
    assert [g.shape for g in gradients] == [x.shape for x in (q, k, v)]
    if not (given == "causal" and q.ndim == 2):  # torch's own needs three dimensions then
        theirs = F.scaled_dot_product_attention(
            q.double(),
            k.double(),
            v.double(),
            mask.double() if given == "float" else mask,
            is_causal=given == "causal",
            scale=scale,
        )
        torch.testing.assert_close(theirs, expected)


def test_mask_of_many_leading_dimensions():
    q, k, v = tensors((2, 4, 3, 5, 8), (2, 4, 3, 9, 8), (2, 4, 3, 9, 8))
    for shape in ((5, 9), (3, 1, 9), (4, 1, 5, 9), (2, 1, 3, 1, 9)):
        (mask,) = tensors(shape)
        compare(q, k, v, dtype=torch.float32, attn_mask=mask)


@pytest.mark.parametrize("scale", [0.3, -0.3, 0, 2])
def test_scale(scale):
    q, k, v = tensors((2, 3, 5, 8), (2, 3, 9, 8), (2, 3, 9, 8))
    compare(q, k, v, dtype=torch.float32, scale=scale)


def test_strides_are_torchs():
    x = torch.randn(2, 7, 3, 16).transpose(1, 2)
    ours, theirs = (
        f(x, x, x) for f in (fa.scaled_dot_product_attention, F.scaled_dot_product_attention)
    )
    assert ours.stride() == theirs.stride()
    transposed = torch.randn(2, 3, 16, 7).mT
    compare(transposed, transposed, transposed, dtype=torch.float32)


def test_dropout_drops_that_fraction_and_keeps_the_mean():
    q, k = torch.zeros(2, 1, 8, 64, 8).unbind()
    v = torch.eye(64).expand(1, 8, 64, 64)
    weights = fa.scaled_dot_product_attention(q, k, v, dropout_p=0.25) * 64
    kept = weights > 0
    torch.testing.assert_close(weights[kept], torch.full_like(weights[kept], 1 / 0.75))
    assert abs(kept.float().mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / kept.numel())
    assert (fa.scaled_dot_product_attention(q, k, v, dropout_p=1.0) == 0).all()


def test_attn_mask_combines_with_is_causal():
    q, k, v = tensors((1, 2, 6, 8), (1, 2, 6, 8), (1, 2, 6, 8))
    mask = torch.rand(6, 6) > 0.3
    both = F.scaled_dot_product_attention(q, k, v, mask & torch.ones(6, 6).tril().bool())
    torch.testing.assert_close(fa.scaled_dot_product_attention(q, k, v, mask, is_causal=True), both)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"key": torch.randn(2, 3, 9, 4)}, ValueError, "key: expected the head_dim of query, 8"),
        ({"key": torch.randn(2, 2, 9, 8)}, ValueError, "enable_gqa"),
        ({"value": torch.randn(2, 3, 8, 8)}, ValueError, "value: expected the seqlen of key, 9"),
        ({"query": torch.randint(3, (2, 3, 5, 8))}, TypeError, "query: expected dtype"),
        ({"key": torch.randn(2, 3, 9, 8).double()}, TypeError, "key: expected the dtype"),
        ({"query": torch.randn(8)}, ValueError, "query: expected"),
        ({"attn_mask": torch.ones(5, 9).long()}, TypeError, "attn_mask: expected dtype bool"),
        ({"attn_mask": torch.ones(5, 8)}, ValueError, "bias: expected a shape broadcastable"),
        ({"attn_mask": torch.ones(5, 8).bool()}, ValueError, "mask: expected a shape"),
        ({"attn_mask": [[True]]}, TypeError, "attn_mask: expected a tensor"),
        ({"dropout_p": 1.5}, ValueError, "dropout_p: expected a probability"),
        ({"scale": math.nan}, ValueError, "scale: expected a finite number"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else None,
)
def test_bad_input(change, error, message):
    q, k, v = tensors((2, 3, 5, 8), (2, 3, 9, 8), (2, 3, 9, 8))
    with pytest.raises(error, match=message):
        fa.scaled_dot_product_attention(**{"query": q, "key": k, "value": v, **change})
