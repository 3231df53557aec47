"""Tensor subclasses that redefine operations are refused by every op, not read as memory.

Seen failing on: the memory of a CausalBias added to the scores, a MaskedTensor normalized with what
it masks, the result of a subclass returned as one.
"""

import copy
import warnings
from functools import partial

import pytest
import torch
import triton
from torch import nn
from torch.nn import functional as F
from torch.nn.attention.bias import CausalBias, causal_lower_right, causal_upper_left
from torch.utils._pytree import tree_map

import fused_attention as fa


class ByFunction(torch.Tensor):
    """Redefines functions; its memory holds nothing that it means."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


class ByDispatch(torch.Tensor):
    """Holds its values in another tensor, as DTensor does."""

    @staticmethod
    def __new__(cls, inner):
        outer = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        outer.inner = inner
        return outer

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        plain = tree_map(lambda x: x.inner if isinstance(x, cls) else x, args)
        return func(*plain, **(kwargs or {}))


def masked(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.masked.masked_tensor(x, torch.ones_like(x, dtype=torch.bool))


SUBCLASSES = {
    "ByFunction": lambda x: x.as_subclass(ByFunction),
    "ByDispatch": ByDispatch,
    "MaskedTensor": masked,
    "CausalBias": lambda x: causal_upper_left(4, 4),
}

X, ROW = torch.randn(4, 8), torch.randn(8)
Q = torch.randn(2, 3, 4, 8)
CELLS = torch.randn(2, 2, 16, 3, 8)  # blocks, keys and values, page, heads, head_dim
TOKENS = torch.randn(4, 3, 8)
TABLE, LENGTHS, STARTS = (torch.tensor(x, dtype=torch.int32) for x in ([[0, 1]], [9], [0, 4]))
BYTES, SCALES = torch.zeros(2, 2, 16, 3, 8, dtype=torch.int8), torch.ones(2, 3)
COS, SIN = fa.rotary_tables(9, 8)
CLASSES = torch.tensor([0, 3, 1, 7])
SDPA = fa.scaled_dot_product_attention


@triton.jit
def _shear(s, b, h, q_idx, kv_idx, seqlen_q, seqlen_k, args):
    return s


SHEAR = fa.define_variant(
    "test_subclasses_shear",
    score=_shear,
    torch_score=lambda *args: args[0],
    additive=True,
)


def over_rows(norm):
    return partial(norm, normalized_shape=(8,))


# Every op with valid arguments, all of them tensors in turn replaced by those of a subclass.
CALLS = {
    "attention": (fa.attention, {"q": Q, "k": Q, "v": Q}),
    "scaled_dot_product_attention": (SDPA, {"query": Q, "key": Q, "value": Q}),
    "float mask": (partial(SDPA, Q, Q, Q), {"attn_mask": torch.zeros(4, 4)}),
    "bool mask": (partial(SDPA, Q, Q, Q), {"attn_mask": torch.ones(4, 4).bool()}),
    "layer_norm": (over_rows(fa.layer_norm), {"x": X, "weight": ROW, "bias": ROW}),
    "rms_norm": (over_rows(fa.rms_norm), {"x": X, "weight": ROW}),
    "add_layer_norm": (
        over_rows(fa.add_layer_norm),
        {"x": X, "residual": X, "weight": ROW, "bias": ROW},
    ),
    "add_rms_norm": (over_rows(fa.add_rms_norm), {"x": X, "residual": X, "weight": ROW}),
    "gelu": (fa.gelu, {"input": X}),
    "bias_gelu": (fa.bias_gelu, {"x": X, "bias": ROW}),
    "geglu": (fa.geglu, {"gate": X, "up": X}),
    "swiglu": (fa.swiglu, {"gate": X, "up": X}),
    "cross_entropy": (fa.cross_entropy, {"input": X, "target": CLASSES, "weight": ROW.abs()}),
    "cross_entropy, probabilities": (fa.cross_entropy, {"input": X, "target": X.softmax(1)}),
    "linear_cross_entropy": (
        fa.linear_cross_entropy,
        {
            "hidden": X,
            "weight": torch.randn(8, 8),
            "target": CLASSES,
            "bias": ROW,
            "class_weight": ROW.abs(),
        },
    ),
    "apply_rotary": (
        fa.apply_rotary,
        {"q": Q, "k": Q, "cos": COS, "sin": SIN, "positions": torch.arange(4)},
    ),
    "paged_append": (
        fa.paged_append,
        {"k": TOKENS, "v": TOKENS, "kv": CELLS, "slot_mapping": torch.arange(4)},
    ),
    "paged_append, int8": (
        fa.paged_append,
        {"k": TOKENS, "v": TOKENS, "kv": BYTES, "slot_mapping": torch.arange(4), "scales": SCALES},
    ),
    "paged_attention": (
        fa.paged_attention,
        {
            "q": TOKENS,
            "kv": CELLS,
            "block_table": TABLE,
            "seq_lens": LENGTHS,
            "cu_seqlens_q": STARTS,
        },
    ),
    "copy_blocks": (fa.copy_blocks, {"kv": CELLS, "pairs": torch.tensor([[0, 1]])}),
    "mask": (fa.mask, {"mask": torch.ones(4, 4).bool()}),
    "bias": (fa.bias, {"bias": torch.zeros(4, 4)}),
    "alibi": (fa.alibi, {"slopes": torch.ones(3)}),
    "key_padding": (fa.key_padding, {"lengths": torch.tensor([3, 4])}),
    "document": (fa.document, {"ids": torch.zeros(4).long()}),
    "past_bias": (fa.past_bias, {"values": torch.zeros(3, 4)}),
    "sink": (fa.sink, {"logits": torch.zeros(3)}),
}
PLACES = [(name, argument) for name, (_, given) in CALLS.items() for argument in given]


@pytest.mark.parametrize("subclass", SUBCLASSES.values(), ids=SUBCLASSES)
@pytest.mark.parametrize("name, argument", PLACES)
def test_every_op_refuses_them(name, argument, subclass):
    call, given = CALLS[name]
    given = copy.deepcopy(given)
    call(**given)
    given[argument] = subclass(given[argument])
    if isinstance(given[argument], CausalBias) and argument == "attn_mask":
        return  # the one place where it has a meaning: see below
    with pytest.raises(NotImplementedError) as caught:
        call(**given)
    assert str(caught.value).startswith(f"{argument}: expected a plain tensor, got a ")
    assert type(given[argument]).__name__ in str(caught.value)


def test_the_table_has_every_op():
    ops = {
        name
        for name in fa.__all__
        if callable(getattr(fa, name)) and not isinstance(getattr(fa, name), type)
    }
    without_tensors = {
        *("alibi_slopes", "causal", "check_variant", "define_variant", "rotary_tables"),
        *("sliding_window", "softcap"),
    }
    assert ops - without_tensors <= set(CALLS)


@pytest.mark.parametrize("subclass", SUBCLASSES.values(), ids=SUBCLASSES)
def test_variants_of_the_user_refuse_them(subclass):
    x = subclass(torch.zeros(4, 4))
    with pytest.raises(NotImplementedError, match="test_subclasses_shear: argument 1: expected"):
        SHEAR(1.0, x)


def module_calls():
    attention = fa.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(2, 4, 8)
    given = {"query": x, "key": x, "value": x, "attn_mask": torch.zeros(4, 4)}
    return attention, given | {"key_padding_mask": torch.zeros(2, 4)}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("subclass", SUBCLASSES.values(), ids=SUBCLASSES)
@pytest.mark.parametrize("argument", ["query", "key", "value", "attn_mask", "key_padding_mask"])
def test_multihead_attention_refuses_them(argument, subclass, need_weights):
    attention, given = module_calls()
    given[argument] = subclass(given[argument])
    with pytest.raises(NotImplementedError, match=f"^{argument}: expected a plain tensor"):
        attention(**given, need_weights=need_weights)


def test_parameters_and_buffers_are_plain():
    x = nn.Parameter(X.clone())
    assert type(fa.gelu(x)) is torch.Tensor
    buffer = torch.nn.Buffer(torch.zeros(4, 4)) if hasattr(torch.nn, "Buffer") else X[:, :4] * 0
    for mask in (buffer, nn.Parameter(torch.zeros(4, 4))):
        out = SDPA(Q, Q, Q, mask)
        torch.testing.assert_close(out, SDPA(Q, Q, Q))
        assert type(out) is torch.Tensor


def test_a_subclass_that_redefines_nothing_passes_through():
    class Tagged(torch.Tensor):
        pass

    found = fa.gelu(X.as_subclass(Tagged))
    assert isinstance(found, Tagged)
    assert torch.equal(found, F.gelu(X).as_subclass(Tagged))


BIASES = {"upper left": causal_upper_left, "lower right": causal_lower_right}


@pytest.mark.parametrize("lengths", [(4, 4), (1, 1), (3, 9), (9, 4), (1, 7), (70, 130)], ids=str)
@pytest.mark.parametrize("make", BIASES.values(), ids=BIASES)
@pytest.mark.filterwarnings("ignore:Lower right causal bias will produce NaNs")
def test_causal_biases_of_torch(make, lengths):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, 3, n, 8, generator=generator, requires_grad=True)
        for n in (lengths[0], lengths[1], lengths[1])
    )
    given = make(*lengths)
    found = SDPA(q, k, v, given)
    expected = F.scaled_dot_product_attention(q, k, v, given._materialize())
    expected = torch.where(given._materialize().any(-1)[:, None], expected, 0.0)
    assert type(found) is torch.Tensor
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(x.square().sum(), (q, k, v)) for x in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_causal_bias_beside_is_causal_holds_too():
    q, k = torch.randn(1, 1, 3, 8), torch.randn(1, 1, 9, 8)
    found = SDPA(q, k, k, causal_lower_right(3, 9), is_causal=True)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, k, is_causal=True))


def test_a_causal_bias_of_other_lengths_is_refused():
    message = "attn_mask: expected a CausalBias of 4 queries and 4 keys, got one of 4 and 5"
    with pytest.raises(ValueError, match=message):
        SDPA(Q, Q, Q, causal_upper_left(4, 5))


def test_a_causal_bias_compiles():
    torch._dynamo.reset()

    def attend(q, k):
        return SDPA(q, k, k, causal_lower_right(4, 9))

    k = torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(torch.compile(attend, backend="aot_eager")(Q, k), attend(Q, k))
