"""Bad input to the paged KV cache raises, and leaves the cache unchanged."""

import pytest
import torch

import fused_attention as fa

from ..helpers.caches import (
    HEAD_DIM,
    KV_HEADS,
    LAYERS,
    CachedDecoder,
    make,
    run,
    sentence,
    snapshot,
    tokens_of,
)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda c, a, b: c.truncate(a, 21), ValueError, "length: expected at most 20"),
        (lambda c, a, b: c.truncate(a, -1), ValueError, "length: expected at least 0"),
        (lambda c, a, b: c.truncate(a, 1.0), TypeError, "length: expected an int"),
        (lambda c, a, b: c.fork(b), ValueError, "seq: this sequence has been freed"),
        (lambda c, a, b: c.truncate(b, 0), ValueError, "freed"),
        (lambda c, a, b: c.free(b), ValueError, "freed"),
        (lambda c, a, b: c.free(make().new()), ValueError, "belongs to another cache"),
        (lambda c, a, b: c.free(3), TypeError, "seq: expected a sequence of this cache, got int"),
        (lambda c, a, b: enter(c, [a, b], 1), ValueError, "freed"),
        (lambda c, a, b: enter(c, [a, a], 1), ValueError, "seqs: expected each sequence once"),
        (lambda c, a, b: enter(c, [a], [1, 2]), ValueError, "n_new: expected 1, one a seq"),
        (lambda c, a, b: enter(c, [a], -1), ValueError, "n_new: expected at least 0, got -1"),
        (lambda c, a, b: enter(c, [a], [1.0]), TypeError, "n_new: expected an int, got float"),
        (lambda c, a, b: enter(c, [a], 1.0), TypeError, "n_new: expected an int"),
        (lambda c, a, b: enter(c, a, 1), TypeError, "seqs: expected a list of sequences"),
        (lambda c, a, b: enter(c, [a], 131), ValueError, "max_seq_len = 150"),
        (lambda c, a, b: enter(c, [c.new() for _ in range(5)], 1), ValueError, "max_seqs = 4"),
        (lambda c, a, b: c.new([1, 2.0]), TypeError, "tokens: expected an int, got float"),
        (lambda c, a, b: c.new(torch.ones(2)), TypeError, "tokens: expected int64 or int32"),
        (lambda c, a, b: c.new([2**63]), ValueError, "tokens: expected"),
        (lambda c, a, b: c.new([1] * 151), ValueError, "tokens: expected at most max_seq_len"),
    ],
)
def test_bad_input_changes_nothing(call, error, words):
    cache = make(prefix_cache=True)
    a, b = cache.new(), cache.new()
    run(CachedDecoder(150), cache, [a, b], [sentence(20, 1), sentence(20, 1)])
    cache.free(b)
    before = snapshot(cache)
    with pytest.raises(error, match=words):
        call(cache, a, b)
    after = snapshot(cache)
    assert after[1:] == before[1:]
    assert {s: t for s, t in after[0].items() if t[0]} == before[0]
    cache.check()


def enter(cache, seqs, counts):
    with cache.step(seqs, counts):
        pytest.fail("the step began")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c, a: enter(c, [a], 1), "step: a step is open"),
        (lambda c, a: c.new(), "new: a step is open"),
        (lambda c, a: c.fork(a), "fork: a step is open"),
        (lambda c, a: c.truncate(a, 0), "truncate: a step is open"),
        (lambda c, a: c.free(a), "free: a step is open"),
    ],
)
def test_refused_while_a_step_is_open(call, words):
    cache = make()
    a = cache.new()
    with cache.step([a], 3) as step:
        before = snapshot(cache)
        with pytest.raises(RuntimeError, match=words):
            call(cache, a)
        assert snapshot(cache) == before
        step.mark_written()
    assert a.length == 3


def test_out_of_blocks():
    cache = make(num_blocks=3)
    a, b = cache.new(), cache.new()
    with cache.step([a], 17) as step:
        step.mark_written()
    before = snapshot(cache)
    with pytest.raises(fa.OutOfBlocks, match="2 needed, 1 free") as caught:
        enter(cache, [a, b], [16, 1])
    assert (caught.value.needed, caught.value.free) == (2, 1)
    assert snapshot(cache) == before


def test_a_block_table_with_invalid_ids_reaches_no_kernel():
    cache = make()
    seq = cache.new()
    with cache.step([seq], 20) as step:
        step.mark_written()
    for wrong in (40, -1, 2**31 - 1):
        right, seq.blocks[0] = seq.blocks[0], wrong
        table = cache._tensors.block_table.clone()
        with pytest.raises(ValueError, match=f"block table: expected blocks from 0 to 39.*{wrong}"):
            enter(cache, [seq], 1)
        assert torch.equal(cache._tensors.block_table, table)
        seq.blocks[0] = right
        cache.check()
        assert seq.length == 20


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"extra": 1}, ValueError, r"q: expected shape \(3, 6, 16\), got \(4, 6, 16\)"),
        ({"kv_heads": 3}, ValueError, r"k: expected shape \(3, 2, 16\), got \(3, 3, 16\)"),
        ({"heads": 5}, ValueError, "q: expected a multiple of 2 heads, got 5"),
        ({"heads": 0}, ValueError, "q: expected a multiple of 2 heads, got 0"),
        ({"dim": 32}, ValueError, "q: expected shape"),
        ({"dtype": torch.float16}, TypeError, "q: expected the cache's dtype torch.float32"),
    ],
)
def test_tensors_that_do_not_fit(change, error, words):
    check_refused(lambda step: tokens_of(step, **change), error, words)


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda q, k, v: (q, k[:1], v), ValueError, "k: expected shape"),
        (lambda q, k, v: (q, k, v[..., :8]), ValueError, "v: expected shape"),
        (lambda q, k, v: (q, k.double(), v), TypeError, "k: expected the cache's dtype"),
        (lambda q, k, v: (q, k, v.to("meta")), ValueError, "v: expected the cache's cpu, got meta"),
        (
            lambda q, k, v: (q[None], k, v),
            ValueError,
            r"q: expected shape \(3, heads, 16\), got \(1, 3, 6, 16\)",
        ),
        (lambda q, k, v: (q[0], k, v), ValueError, r"\(3, heads, 16\), got \(6, 16\)"),
        (lambda q, k, v: (q.flatten(), k, v), ValueError, r"\(3, heads, 16\), got \(288,\)"),
        (lambda q, k, v: (q, k[None], v), ValueError, r"k: expected shape \(3, 2, 16\), got"),
        (lambda q, k, v: (q.tolist(), k, v), TypeError, "q: expected a tensor, got list"),
        (lambda q, k, v: (q, k.flatten(1), v), ValueError, "k: expected shape"),
    ],
)
def test_one_tensor_that_does_not_fit(damage, error, words):
    check_refused(lambda step: damage(*tokens_of(step)), error, words)


def check_refused(tensors, error, words):
    cache = make()
    seq = cache.new()
    with cache.step([seq], 3) as step:
        with pytest.raises(error, match=words):
            cache.attend(0, *tensors(step), step)
        assert cache.kv[0].isnan().all()  # nothing was written
        for layer in (-1, LAYERS):
            with pytest.raises(ValueError, match="layer: expected from 0 to 1"):
                cache.attend(layer, *tokens_of(step), step)
        with pytest.raises(RuntimeError, match="step: expected"):
            cache.attend(0, *tokens_of(step), None)
        step.mark_written()
    assert seq.length == 3


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"num_blocks": 0}, ValueError, "num_blocks: expected at least 1, got 0"),
        ({"num_blocks": 2**31}, ValueError, "num_blocks: expected from 1 to"),
        ({"page_size": 0}, ValueError, "page_size: expected at least 1, got 0"),
        ({"page_size": 24}, ValueError, "page_size: expected a multiple of 16, got 24"),
        ({"page_size": 16.0}, TypeError, "page_size: expected an int, got float"),
        ({"max_seqs": 0}, ValueError, "max_seqs: expected at least 1"),
        ({"max_seq_len": 0}, ValueError, "max_seq_len: expected from 1 to 2147483647, got 0"),
        ({"max_seq_len": 2**31}, ValueError, "max_seq_len: expected from 1 to 2147483647, got"),
        ({"window": -1}, ValueError, f"window: expected from 0 to {2**30}, got -1"),
        ({"window": 2**30 + 1}, ValueError, f"window: expected from 0 to {2**30}, got"),
        ({"window": 2**31}, ValueError, f"window: expected from 0 to {2**30}, got {2**31}"),
        ({"window": 2**64}, ValueError, f"window: expected from 0 to {2**30}, got {2**64}"),
        ({"window": 4.0}, TypeError, "window: expected an int, got float"),
        ({"dtype": torch.int8}, TypeError, "dtype: expected float32, float16 or bfloat16"),
        ({"dtype": torch.float64}, TypeError, "dtype: expected"),
        ({"kv_dtype": torch.float8_e5m2}, NotImplementedError, "kv_dtype: expected"),
        ({"dtype": torch.float16, "kv_dtype": torch.float32}, NotImplementedError, "kv_dtype"),
        ({"kv_scales": torch.ones(2, 2, 2)}, ValueError, "kv_scales: expected None"),
        (
            {"kv_dtype": torch.int8, "kv_scales": torch.ones(2, 2)},
            ValueError,
            r"kv_scales: expected shape \(2, 2, 2\)",
        ),
        (
            {"kv_dtype": torch.int8, "kv_scales": torch.zeros(2, 2, 2)},
            ValueError,
            "kv_scales: expected positive",
        ),
        ({"kv_dtype": torch.int8, "kv_scales": 1.0}, TypeError, "kv_scales: expected a tensor"),
    ],
)
def test_bad_options(options, error, words, monkeypatch):
    monkeypatch.setattr(torch, "empty", None)  # before anything is allocated
    with pytest.raises(error, match=words):
        make(**options)


@pytest.mark.parametrize("position", range(3))
def test_sizes_of_a_model(position):
    sizes = [LAYERS, KV_HEADS, HEAD_DIM]
    for wrong in (0, -1, 1.0, True):
        sizes[position] = wrong
        with pytest.raises((ValueError, TypeError), match=r"(num_layers|num_kv_heads|head_dim): "):
            fa.PagedKVCache(*sizes, num_blocks=1, max_seqs=1, max_seq_len=1)
    with pytest.raises(ValueError, match="head_dim: expected from 1 to 256, got 257"):
        fa.PagedKVCache(1, 1, 257, num_blocks=1, max_seqs=1, max_seq_len=1)
