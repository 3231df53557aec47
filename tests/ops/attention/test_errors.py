"""Bad input to attention raises before anything runs, with the argument, expected and got."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fused_attention as fa
from fused_attention.variants import base

from ...helpers.custom_variants import SINK

Q, KV = (2, 4, 5, 8), (2, 2, 7, 8)


class NothingRuns(TorchDispatchMode):
    """Fails at the first PyTorch operation, allocations included."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} ran before the arguments were checked")


def tensors(q=Q, k=KV, v=KV, **options):
    return [torch.zeros(shape, **options) for shape in (q, k, v)]


def replaced(position, tensor):
    result = tensors()
    result[position] = tensor
    return result


def _wrong_tensors():
    last = torch.zeros(2, 4, 8, 5).mT
    yield "rank", tensors(q=(4, 5, 8)), ValueError, ["q", "4 dimensions", "(4, 5, 8)"]
    yield "rank_v", tensors(v=(2, 1, 2, 7, 8)), ValueError, ["v", "4 dimensions", "(2, 1, 2, 7, 8)"]
    yield "batch", tensors(k=(3, 2, 7, 8)), ValueError, ["k", "batch", "2", "3"]
    yield "batch_v", tensors(v=(1, 2, 7, 8)), ValueError, ["v", "batch", "2", "1"]
    yield "heads_v", tensors(v=(2, 1, 7, 8)), ValueError, ["v", "heads", "2", "1"]
    yield "seqlen_v", tensors(v=(2, 2, 6, 8)), ValueError, ["v", "seqlen", "7", "6"]
    yield "head_dim", tensors(k=(2, 2, 7, 9)), ValueError, ["k", "head_dim", "8", "9"]
    divides = ["k", "divides", "4", "3"]
    yield "heads", tensors(k=(2, 3, 7, 8), v=(2, 3, 7, 8)), ValueError, divides
    divides = ["k", "divides", "4", "0"]
    yield "no_heads", tensors(k=(2, 0, 7, 8), v=(2, 0, 7, 8)), ValueError, divides
    thin = tensors((1, 1, 3, 0), (1, 1, 3, 0), (1, 1, 3, 8))
    yield "no_width", thin, ValueError, ["q", "at least 1", "0"]
    yield "stride", replaced(0, last), ValueError, ["q", "contiguous last dimension", "5"]
    yield "stride_k", replaced(1, torch.zeros(2, 2, 8, 7).mT), ValueError, ["k", "contiguous", "7"]
    yield "integers", tensors(dtype=torch.int64), TypeError, ["q", "float16", "torch.int64"]
    yield "bools", tensors(dtype=torch.bool), TypeError, ["q", "float16", "torch.bool"]
    yield "complex", tensors(dtype=torch.complex64), TypeError, ["q", "float16", "torch.complex64"]
    half = torch.zeros(KV, dtype=torch.float16)
    yield "dtype", replaced(1, half), TypeError, ["k", "dtype of q", "torch.float32", "float16"]
    yield "dtype_v", replaced(2, half), TypeError, ["v", "dtype of q", "torch.float32", "float16"]
    meta = torch.zeros(KV, device="meta")
    yield "device", replaced(1, meta), ValueError, ["k", "device of q", "cpu", "meta"]
    yield "device_v", replaced(2, meta), ValueError, ["v", "device of q", "cpu", "meta"]
    yield "list", replaced(0, [1.0]), TypeError, ["q", "expected a tensor", "list"]
    yield "none", replaced(2, None), TypeError, ["v", "expected a tensor", "NoneType"]
    nested = torch.nested.nested_tensor([torch.zeros(4, 5, 8)] * 2, layout=torch.jagged)
    yield "nested", replaced(0, nested), NotImplementedError, ["q", "nested", "key_padding"]
    sparse = torch.zeros(KV).to_sparse()
    yield "sparse", replaced(1, sparse), NotImplementedError, ["k", "sparse"]


def _wrong_scalars():
    yield "scale_nan", {"scale": math.nan}, ValueError, ["scale", "finite", "nan"]
    yield "scale_inf", {"scale": -math.inf}, ValueError, ["scale", "finite", "-inf"]
    yield "scale_str", {"scale": "1"}, TypeError, ["scale", "number", "str"]
    yield "scale_bool", {"scale": True}, TypeError, ["scale", "number", "bool"]
    yield "scale_tensor", {"scale": torch.ones(())}, TypeError, ["scale", "number", "Tensor"]
    yield "dropout_high", {"dropout_p": 1.5}, ValueError, ["dropout_p", "0 to 1", "1.5"]
    yield "dropout_low", {"dropout_p": -0.1}, ValueError, ["dropout_p", "0 to 1", "-0.1"]
    yield "dropout_nan", {"dropout_p": math.nan}, ValueError, ["dropout_p", "0 to 1", "nan"]
    yield "dropout_str", {"dropout_p": "0.1"}, TypeError, ["dropout_p", "number", "str"]
    yield "dropout_none", {"dropout_p": None}, TypeError, ["dropout_p", "number", "NoneType"]
    yield "dropout_bool", {"dropout_p": True}, TypeError, ["dropout_p", "number", "bool"]


def _wrong_variants():
    """Variants that are valid alone but do not fit q and k."""
    meta = {"device": "meta"}
    lengths = fa.key_padding(torch.tensor([1, 2, 3]))
    yield "lengths", lengths, ValueError, ["lengths", "(2,)", "(3,)"]
    lengths = fa.key_padding(torch.ones(2, dtype=torch.int64, **meta))
    yield "lengths_device", lengths, ValueError, ["lengths", "cpu", "meta"]
    yield "slopes", fa.alibi(torch.ones(3)), ValueError, ["slopes", "(4,)", "(2, 4)", "3"]
    yield "slopes_batch", fa.alibi(torch.ones(3, 4)), ValueError, ["slopes", "(2, 4)", "(3, 4)"]
    yield "slopes_device", fa.alibi(torch.ones(4, **meta)), ValueError, ["slopes", "cpu", "meta"]
    values = fa.past_bias(torch.ones(3, 9))
    yield "values", values, ValueError, ["values", "(4, distances)", "(3, 9)"]
    values = fa.past_bias(torch.ones(4, 9, **meta))
    yield "values_device", values, ValueError, ["values", "cpu", "meta"]
    full = "(2, 4, 5, 7)"
    mask = fa.mask(torch.ones(5, 6, dtype=torch.bool))
    yield "mask", mask, ValueError, ["mask", full, "(1, 1, 5, 6)"]
    mask = fa.mask(torch.ones(5, 7, dtype=torch.bool, **meta))
    yield "mask_device", mask, ValueError, ["mask", "cpu", "meta"]
    yield "bias", fa.bias(torch.ones(2, 2, 5, 7)), ValueError, ["bias", full, "(2, 2, 5, 7)"]
    yield "bias_device", fa.bias(torch.ones(5, 7, **meta)), ValueError, ["bias", "cpu", "meta"]
    ids = fa.document(torch.zeros(6, dtype=torch.int64))
    yield "ids", ids, ValueError, ["ids", "(7,)", "(2, 7)", "6"]
    ids = fa.document(torch.zeros(3, 7, dtype=torch.int64))
    yield "ids_batch", ids, ValueError, ["ids", "(2, 7)", "(3, 7)"]
    yield "uncalled", fa.causal, TypeError, ["variants", "call it"]
    yield "uncalled_in_stack", [fa.softcap(1.0), fa.causal], TypeError, ["variants", "call it"]
    yield "uncalled_type", SINK, TypeError, ["variants", "call it"]
    yield "string", "causal", TypeError, ["variants", "Variant", "'causal'"]
    yield "strings", ["causal"], TypeError, ["variants", "Variant", "'causal'"]
    yield "number", 3, TypeError, ["variants", "Variant", "3"]
    yield "none", None, TypeError, ["variants", "Variant", "None"]


def check_refused(call, error, words):
    with NothingRuns(), pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    message = str(caught.value)
    assert all(word in message for word in words), message


def table(rows):
    return pytest.mark.parametrize(
        "given, error, words", [pytest.param(*row[1:], id=row[0]) for row in rows]
    )


@table(_wrong_tensors())
def test_tensors(given, error, words):
    name, *rest = words
    check_refused(lambda: fa.attention(*given), error, [f"{name}: expected", *rest])


@table(_wrong_scalars())
def test_scalars(given, error, words):
    given_tensors = tensors()
    name, *rest = words
    check_refused(
        lambda: fa.attention(*given_tensors, **given), error, [f"{name}: expected", *rest]
    )


@table(_wrong_variants())
def test_variants_that_do_not_fit(given, error, words):
    given_tensors = tensors()
    name, *rest = words
    check_refused(lambda: fa.attention(*given_tensors, given), error, [f"{name}: expected", *rest])


def test_documents_have_no_more_queries_than_keys():
    given = tensors(q=(2, 4, 9, 8))
    ids = fa.document(torch.zeros(7, dtype=torch.int64))
    words = ["ids: expected", "no more queries than keys", "9", "7"]
    check_refused(lambda: fa.attention(*given, ids), ValueError, words)


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64])
def test_integers_of_numpy(kind):
    q, k, v = tensors()
    (width,) = fa.sliding_window(kind(2)).args[:1]
    assert type(width) is int
    expected = fa.attention(q, k, v, fa.sliding_window(2, 1))
    assert torch.equal(fa.attention(q, k, v, fa.sliding_window(kind(2), kind(1))), expected)
    logits, target = torch.randn(4, 5), torch.tensor([0, 3, 2, 3])
    expected = fa.cross_entropy(logits, target, ignore_index=3)
    assert fa.cross_entropy(logits, target, ignore_index=kind(3)) == expected


INTS, FLOATS = torch.zeros(4, dtype=torch.int64), torch.zeros(4)
CONSTRUCTORS = [
    ("align", lambda: fa.causal(align="left"), ValueError, ["bottom_right", "top_left", "'left'"]),
    ("left", lambda: fa.sliding_window(-1), ValueError, ["0 <= left", "-1"]),
    ("right", lambda: fa.sliding_window(1, -2), ValueError, ["0 <= right", "-2"]),
    ("left", lambda: fa.sliding_window(2**31), ValueError, ["2**30", str(2**31)]),
    ("left", lambda: fa.sliding_window(1.5), TypeError, ["int", "float"]),
    ("left", lambda: fa.sliding_window(True), TypeError, ["int", "bool"]),
    ("cap", lambda: fa.softcap(0.0), ValueError, ["positive", "0.0"]),
    ("cap", lambda: fa.softcap(-1), ValueError, ["positive", "-1"]),
    ("cap", lambda: fa.softcap(math.inf), ValueError, ["finite", "inf"]),
    ("cap", lambda: fa.softcap("30"), TypeError, ["number", "str"]),
    ("slopes", lambda: fa.alibi([0.5]), TypeError, ["tensor", "list"]),
    ("slopes", lambda: fa.alibi(INTS), TypeError, ["floating", "torch.int64"]),
    ("slopes", lambda: fa.alibi(FLOATS.reshape(1, 2, 2)), ValueError, ["(heads,)", "(1, 2, 2)"]),
    ("num_heads", lambda: fa.alibi_slopes(0), ValueError, ["positive", "0"]),
    ("values", lambda: fa.past_bias([0.5]), TypeError, ["tensor", "list"]),
    ("values", lambda: fa.past_bias(INTS), TypeError, ["floating", "torch.int64"]),
    ("values", lambda: fa.past_bias(FLOATS), ValueError, ["(heads, distances)"]),
    ("lengths", lambda: fa.key_padding([3]), TypeError, ["tensor", "list"]),
    ("lengths", lambda: fa.key_padding(FLOATS), TypeError, ["int32", "torch.float32"]),
    ("ids", lambda: fa.document([3]), TypeError, ["tensor", "list"]),
    ("ids", lambda: fa.document(FLOATS), TypeError, ["int32", "torch.float32"]),
    ("ids", lambda: fa.document(INTS.reshape(1, 2, 2)), ValueError, ["(L,)", "(1, 2, 2)"]),
    ("mask", lambda: fa.mask([True]), TypeError, ["tensor", "list"]),
    ("mask", lambda: fa.mask(FLOATS), TypeError, ["bool", "torch.float32", "bias"]),
    ("mask", lambda: fa.mask(INTS.bool().reshape(1, 1, 2, 2, 1)), ValueError, ["4 dimensions"]),
    ("bias", lambda: fa.bias(3.0), TypeError, ["tensor", "float"]),
    ("bias", lambda: fa.bias(INTS), TypeError, ["floating", "torch.int64", "mask"]),
    ("bias", lambda: fa.bias(FLOATS.reshape(1, 1, 2, 2, 1)), ValueError, ["4 dimensions"]),
]


@pytest.mark.parametrize("name, call, error, words", CONSTRUCTORS)
def test_constructors(name, call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    message = str(caught.value)
    assert message.startswith(f"{name}: expected"), message
    assert all(word in message for word in words), message


def test_gradients_that_do_not_exist_are_refused_not_dropped():
    given = tensors()
    table = torch.rand(1, 4, 1, 7)
    words = ["variants: test_stray has no gradient for its argument 0", "detach"]
    stray = base.VariantType(
        "test_stray", score=lambda *args: args[0], torch_score=lambda *args: args[0], additive=True
    )
    check_refused(
        lambda: fa.attention(*given, stray(table.requires_grad_())), NotImplementedError, words
    )
    flat = SINK(torch.rand(4, requires_grad=True), 0.5)
    words = ["variants: test_sink needs a 4-D argument", "(4,)"]
    check_refused(lambda: fa.attention(*given, flat), ValueError, words)


def test_double_backward():
    q, k, v = (x.requires_grad_() for x in tensors())
    out = fa.attention(q, k, v)
    (grad,) = torch.autograd.grad(out.sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"double backward.*scaled_dot_product"):
        grad.sum().backward()


@pytest.mark.parametrize("through", ["jvp", "dual"])
def test_forward_mode(through):
    """It raises, where a custom operator alone would return a tangent of zero."""
    q, k, v = tensors()
    message = "forward-mode.*scaled_dot_product"
    if through == "jvp":
        with pytest.raises(NotImplementedError, match=message):
            torch.func.jvp(lambda x: fa.attention(x, k, v), (q,), (torch.ones_like(q),))
        return
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(k, torch.ones_like(k))
        with pytest.raises(NotImplementedError, match=message):
            fa.attention(q, dual, v)
