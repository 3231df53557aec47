"""Bad input to the paged functions raises, names the argument and leaves the cache unchanged."""

import pytest
import torch

import fused_attention as fa

from ...helpers.custom_variants import SINK
from ..attention.test_errors import check_refused, table

ATTEND = ("q", "kv", "block_table", "seq_lens", "cu_seqlens_q")
APPEND = ("k", "v", "kv", "slot_mapping")


def ints(*values):
    return torch.tensor(values, dtype=torch.int32)


def attend_arguments():
    """Two sequences with 1 and 2 queries and 3 and 20 keys; 4 blocks of 16."""
    return {
        "q": torch.zeros(3, 4, 8),
        "kv": torch.zeros(4, 2, 16, 2, 8),
        "block_table": ints(0, 1, 2, 3).reshape(2, 2),
        "seq_lens": ints(3, 20),
        "cu_seqlens_q": ints(0, 1, 3),
    }


def append_arguments():
    return {
        "k": torch.zeros(3, 2, 8),
        "v": torch.zeros(3, 2, 8),
        "kv": torch.full((4, 2, 16, 2, 8), 7.0),
        "slot_mapping": torch.tensor([5, -1, 63]),
    }


def attend(**given):
    arguments = attend_arguments() | given
    tensors = [arguments.pop(name) for name in ATTEND]
    return fa.paged_attention(*tensors, **arguments)


def append(**given):
    return fa.paged_append(**append_arguments() | given)


def test_the_default_arguments_are_valid():
    assert attend().shape == (3, 4, 8)
    append()


KV = (4, 2, 16, 2, 8)


def _storage():
    """Bad caches, for both functions."""
    yield "list", {"kv": [1]}, TypeError, ["kv", "tensor", "list"]
    kv = torch.zeros(4, 2, 16, 8)
    yield "rank", {"kv": kv}, ValueError, ["kv", "(num_blocks, 2,", "(4, 2, 16, 8)"]
    yield "sides", {"kv": torch.zeros(4, 3, 16, 2, 8)}, ValueError, ["kv", "keys and values", "3"]
    for page in (0, 8, 24):
        kv = torch.zeros(4, 2, page, 2, 8)
        yield f"page_{page}", {"kv": kv}, ValueError, ["kv", "multiple of 16", str(page)]
    kv = torch.zeros(KV, dtype=torch.int32)
    yield "dtype", {"kv": kv}, TypeError, ["kv", "int8", "torch.int32"]
    kv = torch.zeros(KV, dtype=torch.int8)
    yield "no_scales", {"kv": kv}, ValueError, ["scales", "int8", "None"]
    given = {"scales": torch.ones(2, 2)}
    yield "useless_scales", given, ValueError, ["scales", "None", "float32"]
    given = {"kv": kv, "scales": torch.ones(2, 3)}
    yield "scales", given, ValueError, ["scales", "(2, 2)", "(4, 2, 16, 2)", "(2, 3)"]
    given = {"kv": kv, "scales": torch.ones(2, 2, dtype=torch.float16)}
    yield "scales_dtype", given, TypeError, ["scales", "float32", "float16"]
    given = {"kv": kv, "scales": 0.5}
    yield "number", given, TypeError, ["scales", "float32", "float"]
    given = {"kv": kv, "scales": torch.ones(2, 4)[:, ::2]}
    yield "scales_strides", given, ValueError, ["scales", "contiguous", "(4, 2)"]
    kv = torch.zeros(*KV[:4], 16)[..., ::2]
    yield "strides", {"kv": kv}, ValueError, ["kv", "contiguous last dimension"]
    yield "wide", {"kv": torch.zeros(1, 2, 16, 2, 257)}, ValueError, ["kv", "1 to 256", "257"]


def _attention():
    yield from _storage()
    yield "ints", {"q": torch.zeros(3, 4, 8).int()}, TypeError, ["q", "float16", "int32"]
    yield "batch", {"q": torch.zeros(1, 3, 4, 8)}, ValueError, ["q", "(tokens,", "(1, 3, 4, 8)"]
    yield "head_dim", {"q": torch.zeros(3, 4, 9)}, ValueError, ["q", "head_dim", "8", "9"]
    yield "heads", {"q": torch.zeros(3, 5, 8)}, ValueError, ["kv", "divides", "5", "2"]
    yield "narrow", {"q": torch.zeros(3, 4, 8).half()}, TypeError, ["q", "float32", "float16"]
    mixed = {"q": torch.zeros(3, 4, 8).half(), "kv": torch.zeros(KV).bfloat16()}
    yield "mixed", mixed, TypeError, ["q", "bfloat16", "float16"]
    yield "meta", {"q": torch.zeros(3, 4, 8, device="meta")}, ValueError, ["q", "cpu", "meta"]
    yield (
        "gradient",
        {"q": torch.zeros(3, 4, 8, requires_grad=True)},
        NotImplementedError,
        [
            *("q", "no_grad"),
        ],
    )
    kv = torch.zeros(KV, requires_grad=True)
    yield "gradient_of_kv", {"kv": kv}, NotImplementedError, ["kv", "no_grad"]
    bias = SINK(torch.zeros(1, 4, 1, 32, requires_grad=True), 0.5)
    words = ["argument 0 of test_sink in variants", "no_grad"]
    yield "gradient_of_variant", {"variants": bias}, NotImplementedError, words
    long = torch.zeros(2, 2, dtype=torch.int64)
    yield "table", {"block_table": long}, TypeError, ["block_table", "int32", "int64"]
    yield "flat", {"block_table": ints(0, 1)}, ValueError, ["block_table", "max_blocks", "(2,)"]
    yield "lens", {"seq_lens": ints(3)}, ValueError, ["seq_lens", "(2,)", "(1,)"]
    yield "ends", {"cu_seqlens_q": ints(0, 3)}, ValueError, ["cu_seqlens_q", "(3,)", "(2,)"]
    none = {
        "block_table": torch.zeros(0, 2).int(),
        "seq_lens": ints(),
        "cu_seqlens_q": ints(0),
    }
    yield "no_rows", none, ValueError, ["block_table", "3 tokens", "none"]
    yield "splits", {"num_splits": 0}, ValueError, ["num_splits", "1 to 128", "0"]
    yield "many_splits", {"num_splits": 129}, ValueError, ["num_splits", "1 to 128", "129"]
    yield "half_a_split", {"num_splits": 1.5}, TypeError, ["num_splits", "int", "float"]
    yield "most", {"max_seqlen_q": 0}, ValueError, ["max_seqlen_q", "positive", "0"]
    yield "scale", {"scale": float("nan")}, ValueError, ["scale", "finite", "nan"]
    yield "variants", {"variants": fa.causal}, TypeError, ["variants", "call it"]
    slopes = fa.alibi(torch.ones(3))
    yield "slopes", {"variants": slopes}, ValueError, ["slopes", "(4,)", "(1, 3)"]


def _append():
    yield from _storage()
    yield "heads", {"k": torch.zeros(3, 4, 8)}, ValueError, ["k", "2 heads", "4"]
    yield "head_dim", {"v": torch.zeros(3, 2, 9)}, ValueError, ["v", "head_dim", "8", "9"]
    yield "tokens", {"v": torch.zeros(2, 2, 8)}, ValueError, ["v", "3 tokens", "2"]
    yield "dtype_v", {"v": torch.zeros(3, 2, 8).double()}, TypeError, ["v", "float32", "float64"]
    yield "narrow", {"k": torch.zeros(3, 2, 8).half()}, TypeError, ["k", "float32", "float16"]
    yield "slots", {"slot_mapping": ints(1, 2, 3)}, TypeError, ["slot_mapping", "int64", "int32"]
    slots = torch.tensor([1, 2])
    yield "fewer", {"slot_mapping": slots}, ValueError, ["slot_mapping", "3 tokens", "2"]
    k = torch.zeros(3, 2, 8, requires_grad=True)
    yield "gradient", {"k": k}, NotImplementedError, ["k", "no_grad"]


@table(_attention())
def test_attention(given, error, words):
    arguments = attend_arguments() | given
    tensors = [arguments.pop(name) for name in ATTEND]
    name, *rest = words
    check_refused(
        lambda: fa.paged_attention(*tensors, **arguments), error, [f"{name}: expected", *rest]
    )


@table(_append())
def test_append(given, error, words):
    arguments = append_arguments() | given
    name, *rest = words
    check_refused(lambda: fa.paged_append(**arguments), error, [f"{name}: expected", *rest])


METADATA = [
    ("outside", {"block_table": ints(0, 1, 4, 3).reshape(2, 2)}, ["0 to 3", "4", "sequence 1"]),
    ("negative", {"block_table": ints(-1, 1, 2, 3).reshape(2, 2)}, ["0 to 3", "-1", "page 0"]),
    ("long", {"seq_lens": ints(3, 33)}, ["0 to the 32 slots", "33", "sequence 1"]),
    ("short", {"seq_lens": ints(-1, 20)}, ["0 to the 32 slots", "-1", "sequence 0"]),
    ("start", {"cu_seqlens_q": ints(1, 2, 3)}, ["3 tokens", "[1, 2, 3]"]),
    ("end", {"cu_seqlens_q": ints(0, 1, 2)}, ["3 tokens", "[0, 1, 2]"]),
    ("descent", {"cu_seqlens_q": ints(0, 4, 3)}, ["ascending", "[0, 4, 3]"]),
    ("most", {"max_seqlen_q": 1}, ["at least the 2 tokens", "1"]),
]


@pytest.mark.parametrize("given, words", [pytest.param(*row[1:], id=row[0]) for row in METADATA])
def test_bad_metadata(given, words):
    with pytest.raises(ValueError) as caught:
        attend(**given)
    (name,) = given
    message = str(caught.value)
    assert message.startswith(f"{name}: expected"), message
    assert all(word in message for word in words), message


def test_entries_past_the_last_page_are_not_read():
    """Table entries past the last page may be invalid; the sequences have one page and none."""
    attend(block_table=ints(0, -7, 99, 2**30).reshape(2, 2), seq_lens=ints(3, 0))


@pytest.mark.parametrize(
    "slots, words",
    [
        ([5, 64, 3], ["-1 to 63", "64", "token 1"]),
        ([5, -2, 3], ["-1 to 63", "-2", "token 1"]),
        ([5, 3, 5], ["once", "5 twice"]),
    ],
)
def test_bad_slots_leave_the_cache_unchanged(slots, words):
    kv = append_arguments()["kv"]
    with pytest.raises(ValueError) as caught:
        append(kv=kv, slot_mapping=torch.tensor(slots))
    message = str(caught.value)
    assert message.startswith("slot_mapping: expected"), message
    assert all(word in message for word in words), message
    assert (kv == 7).all()


def test_several_tokens_may_have_no_slot():
    append(slot_mapping=torch.tensor([-1, -1, 3]))


@pytest.mark.parametrize(
    "pairs, error, words",
    [
        ([[0, 4]], ValueError, ["pairs: expected blocks from 0 to 3", "4"]),
        ([[-1, 1]], ValueError, ["pairs: expected blocks from 0 to 3", "-1"]),
        ([[0, 1], [2, 1]], ValueError, ["pairs: expected destinations that occur once", "[2, 1]"]),
        ([[0, 1], [1, 2]], ValueError, ["pairs: expected destinations that occur once", "[1, 2]"]),
        ([[0, 1, 2]], ValueError, ["pairs: expected shape (n, 2)", "(1, 3)"]),
        ([[0.0, 1.0]], TypeError, ["pairs: expected dtype int64", "float32"]),
    ],
)
def test_copies(pairs, error, words):
    kv = torch.arange(4.0)[:, None].expand(4, 8).contiguous()
    before = kv.clone()
    with pytest.raises(error) as caught:
        fa.copy_blocks(kv, torch.tensor(pairs))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert torch.equal(kv, before)


def test_copies_need_a_contiguous_cache():
    pairs = torch.tensor([[0, 1]])
    with pytest.raises(ValueError, match="kv: expected contiguous"):
        fa.copy_blocks(torch.zeros(8, 4).T, pairs)
    with pytest.raises(TypeError, match="kv: expected a dtype that is stored"):
        fa.copy_blocks(torch.zeros(4, 8).int(), pairs)
    with pytest.raises(NotImplementedError, match="no_grad"):
        fa.copy_blocks(torch.zeros(4, 8, requires_grad=True), pairs)


def test_no_gradient_is_asked_for_under_no_grad():
    q = torch.zeros(3, 4, 8, requires_grad=True)
    with torch.no_grad():
        assert not attend(q=q).requires_grad
