"""Modules beyond torch's own samples: those that torch lacks, and options its samples omit.

Seen failing on: dropout outside training, the gate and the up half swapped, a padding mask
inverted, weights where every key is padded, the is_causal hint ignored.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fused_attention as fa

from ..helpers.support import every_leg


def normal(*shape, seed=0, device="cpu"):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


ACTIVATIONS = {
    "gelu": lambda h: F.gelu(h),
    "gelu_tanh": lambda h: F.gelu(h, approximate="tanh"),
    "geglu": lambda h: F.gelu(h[..., :24]) * h[..., 24:],
    "geglu_tanh": lambda h: F.gelu(h[..., :24], approximate="tanh") * h[..., 24:],
    "swiglu": lambda h: F.silu(h[..., :24]) * h[..., 24:],
}


@every_leg
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp(device, activation, bias):
    mlp = fa.MLP(16, 24, activation, bias).to(device)
    x = normal(2, 5, 16, device=device)
    expected = F.linear(
        ACTIVATIONS[activation](F.linear(x, mlp.up.weight, mlp.up.bias)),
        *(mlp.down.weight, mlp.down.bias),
    )
    torch.testing.assert_close(mlp(x), expected, rtol=1e-5, atol=1e-6)
    assert set(mlp.state_dict()) == {
        *("up.weight", "down.weight"),
        *(("up.bias", "down.bias") if bias else ()),
    }
    assert f"activation='{activation}'" in repr(mlp)


def test_mlp_defaults_and_errors():
    assert fa.MLP(8).up.weight.shape == (32, 8)
    assert fa.MLP(8, activation="swiglu", dtype=torch.bfloat16).up.weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"activation: expected one of gelu, .* got 'swish'"):
        fa.MLP(8, activation="swish")


NORMS = {
    "layer": (fa.AddLayerNorm, nn.LayerNorm, {}),
    "layer without bias": (fa.AddLayerNorm, nn.LayerNorm, {"bias": False}),
    "bare layer": (fa.AddLayerNorm, nn.LayerNorm, {"elementwise_affine": False}),
    "rms": (fa.AddRMSNorm, nn.RMSNorm, {}),
    "rms with eps": (fa.AddRMSNorm, nn.RMSNorm, {"eps": 0.1}),
}


@every_leg
@pytest.mark.parametrize("ours, theirs, options", NORMS.values(), ids=NORMS)
def test_norm_of_a_sum(device, ours, theirs, options):
    module, plain = (kind(16, **options).to(device) for kind in (ours, theirs))
    module.load_state_dict(plain.state_dict())
    x, residual = normal(3, 16, device=device), normal(3, 16, seed=1, device=device)
    normed, total = module(x, residual)
    assert torch.equal(total, residual + x)
    torch.testing.assert_close(normed, plain(residual + x))
    post = ours(16, prenorm=False, **options).to(device)
    torch.testing.assert_close(post(x, residual), plain(residual + x))
    assert plain.extra_repr() in repr(module) and "dropout=0.0, prenorm=True" in repr(module)


@every_leg
@pytest.mark.parametrize("ours, theirs, options", NORMS.values(), ids=NORMS)
def test_norm_without_a_residual(device, ours, theirs, options):
    """Without a residual x itself is normalized, without dropout."""
    module, plain = (kind(16, **options).to(device) for kind in (ours, theirs))
    module.load_state_dict(plain.state_dict())
    module.dropout, x = 0.5, normal(3, 16, device=device)
    normed, total = module(x)
    assert total is x
    torch.testing.assert_close(normed, plain(x))
    module.prenorm = False
    assert torch.equal(module(x), normed)


@every_leg
@pytest.mark.parametrize("kind", [fa.AddLayerNorm, fa.AddRMSNorm])
def test_dropout_before_the_sum_in_training_only(device, kind):
    module = kind(64, dropout=0.25).to(device)
    x, residual = torch.ones(32, 64, device=device), torch.zeros(32, 64, device=device)
    assert torch.equal(module.eval()(x, residual)[1], x)
    total = module.train()(x, residual)[1]
    kept = total > 0
    torch.testing.assert_close(total[kept], torch.full_like(total[kept], 1 / 0.75))
    assert abs(kept.float().mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / kept.numel())


def attention(**options):
    """Our MultiheadAttention and torch's, with the same nonzero parameters."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, **options)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = fa.MultiheadAttention(16, 4, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


OPTIONS = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "no bias": {"bias": False, "batch_first": True},
    "own dims": {"kdim": 6, "vdim": 10},
    "appended": {"add_bias_kv": True, "add_zero_attn": True},
}
MASKS = {
    "none": lambda: (None, None),
    "padding": lambda: (torch.arange(7) >= torch.tensor([[5], [7], [1]]), None),
    "float padding": lambda: (normal(3, 7), None),
    "square": lambda: (None, normal(5, 7) > 1),
    "float square": lambda: (None, normal(5, 7)),
    "by head": lambda: (None, normal(12, 5, 7) > 1),
    "both": lambda: (torch.arange(7) >= torch.tensor([[5], [7], [3]]), normal(12, 5, 7) > 2),
}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_multihead_attention(options, masks, need_weights):
    ours, theirs = attention(**options)
    q, k, v = normal(3, 5, 16), normal(3, 7, ours.kdim, seed=1), normal(3, 7, ours.vdim, seed=2)
    if not ours.batch_first:
        q, k, v = (x.transpose(0, 1).contiguous() for x in (q, k, v))
    padding, square = masks()
    found, expected = (
        module(q, k, v, padding, need_weights, square, average_attn_weights=False)
        for module in (ours, theirs)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    gradients = [
        torch.autograd.grad(
            module(*inputs, padding, need_weights, square)[0].square().sum(),
            [*inputs, *module.parameters()],
        )
        for module in (ours, theirs)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_weights_are_averaged_over_the_heads_if_asked():
    ours, _ = attention(batch_first=True)
    x = normal(3, 5, 16)
    _, each = ours(x, x, x, average_attn_weights=False)
    _, mean = ours(x, x, x)
    torch.testing.assert_close(mean, each.mean(1))
    torch.testing.assert_close(each.sum(-1), torch.ones(3, 4, 5))


def test_without_a_batch():
    ours, theirs = attention()
    q, k = normal(5, 16), normal(7, 16, seed=1)
    for padding in (None, torch.arange(7) > 4):
        found, expected = (m(q, k, k, padding, average_attn_weights=False) for m in (ours, theirs))
        torch.testing.assert_close(found, expected)
        assert found[1].shape == (4, 5, 7)


@every_leg
@pytest.mark.parametrize("need_weights", [True, False])
def test_a_query_whose_keys_are_all_padded_gets_the_bias_and_no_nan(device, need_weights):
    ours, _ = attention(batch_first=True)
    ours = ours.to(device)
    x = normal(2, 5, 16, device=device).requires_grad_()
    padding = torch.tensor([[False] * 5, [True] * 5], device=device)
    out, weights = ours(x, x, x, padding, need_weights)
    assert torch.equal(out[1], ours.out_proj.bias.expand(5, 16))
    if need_weights:
        assert (weights[1] == 0).all()
    gradients = torch.autograd.grad(out.square().sum(), [x, *ours.parameters()])
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[0][1] == 0).all()


def test_is_causal_needs_the_causal_mask():
    ours, theirs = attention(batch_first=True)
    x = normal(2, 5, 16)
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    found, expected = (
        m(x, x, x, attn_mask=causal, is_causal=True, need_weights=False)[0] for m in (ours, theirs)
    )
    torch.testing.assert_close(found, expected)
    padding = torch.arange(5) >= torch.tensor([[4], [5]])
    torch.testing.assert_close(
        *(m(x, x, x, padding, attn_mask=causal < 0, is_causal=True)[0] for m in (ours, theirs))
    )
    with pytest.raises(RuntimeError, match="is_causal: expected the causal attn_mask"):
        ours(x, x, x, is_causal=True)


@pytest.mark.parametrize("shape", [(5, 5), (3, 3), (4, 9), (8, 5, 5), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_a_hinted_mask_is_not_read(shape, dtype):
    """Neither its values nor, as in torch, its shape."""
    ours, theirs = attention(batch_first=True)
    x, mask = normal(2, 5, 16), torch.ones(shape, dtype=dtype)
    found, expected = (
        m(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0] for m in (ours, theirs)
    )
    torch.testing.assert_close(found, expected)


def test_a_mask_that_is_read_must_fit():
    ours, _ = attention(batch_first=True)
    x, mask, padding = normal(2, 5, 16), torch.ones(3, 3), torch.zeros(2, 5).bool()
    for options in (
        {"need_weights": True},
        {"need_weights": False, "key_padding_mask": padding},
    ):
        with pytest.raises(ValueError, match=r"attn_mask: expected shape \(5, 5\) or"):
            ours(x, x, x, attn_mask=mask, is_causal=True, **options)
    with pytest.raises(ValueError, match="attn_mask: expected shape"):
        ours(x, x, x, attn_mask=mask[0], is_causal=True, need_weights=False)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("appended", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
@pytest.mark.parametrize("seqlen_k", [3, 5, 7])
def test_the_causal_hint_beside_appended_keys(seqlen_k, appended, need_weights):
    """The keys appended come last: where the hint holds, only a query further on sees them."""
    ours, theirs = attention(batch_first=True, **appended)
    q, k = normal(2, 5, 16), normal(2, seqlen_k, 16, seed=1)
    causal = torch.ones(5, seqlen_k).triu(1).bool()
    found, expected = (
        m(q, k, k, attn_mask=causal, is_causal=True, need_weights=need_weights)[0]
        for m in (ours, theirs)
    )
    torch.testing.assert_close(found, expected)
    read = ours(q, k, k, attn_mask=causal, need_weights=need_weights)[0]
    assert torch.allclose(found, read) == need_weights


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_weights_are_dropped_in_training_only(need_weights):
    ours, _ = attention(dropout=0.5, batch_first=True)
    x = normal(2, 5, 16)
    exact = ours.eval()(x, x, x, need_weights=need_weights)[0]
    assert torch.equal(exact, ours(x, x, x, need_weights=need_weights)[0])
    assert not torch.equal(exact, ours.train()(x, x, x, need_weights=need_weights)[0])


@pytest.mark.parametrize("need_weights", [True, False])
def test_it_compiles_without_graph_breaks(need_weights):
    torch._dynamo.reset()
    ours, _ = attention(batch_first=True)
    x, padding = normal(2, 5, 16), torch.arange(5) >= torch.tensor([[4], [5]])
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(x, x, x, padding, need_weights), ours(x, x, x, padding, need_weights)
    )


def test_inside_a_torch_transformer_layer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    x = normal(2, 5, 16)
    expected = layer(x)
    attention = fa.MultiheadAttention(16, 4, batch_first=True)
    attention.load_state_dict(layer.self_attn.state_dict())
    layer.self_attn = attention
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"query": normal(5, 3, 8)}, ValueError, "query: expected 16 for the last dimension"),
        ({"query": normal(5, 16)}, ValueError, "query, key, value: expected 3 dimensions each"),
        ({"value": normal(6, 3, 16)}, ValueError, "value: expected the batch and length of key"),
        ({"query": normal(5, 2, 16)}, ValueError, "key: expected the batch of query, 2"),
        ({"key": None}, TypeError, "key: expected a tensor, got NoneType"),
        ({"attn_mask": torch.ones(5, 6)}, ValueError, r"attn_mask: expected shape \(5, 7\) or"),
        ({"attn_mask": torch.ones(5, 7).long()}, TypeError, "attn_mask: expected dtype bool or"),
        ({"key_padding_mask": torch.ones(7, 3).bool()}, ValueError, "key_padding_mask: expected"),
    ],
)
def test_bad_input(change, error, message):
    ours, _ = attention()
    tensors = {"query": normal(5, 3, 16), "key": normal(7, 3, 16), "value": normal(7, 3, 16)}
    with pytest.raises(error, match=message):
        ours(**{**tensors, **change})
