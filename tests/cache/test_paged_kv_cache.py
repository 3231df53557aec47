"""Attention through the paged KV cache.

Random operations are in `test_cache_stateful.py`, bad input in `test_paged_kv_cache_errors.py`, and
paged attention itself in `test_paged_attention.py`.  Caches start filled with NaN, which must reach
no result.
"""

import random
from functools import partial

import numpy as np
import pytest
import torch

import fused_attention as fa
from fused_attention.cache import step_tensors
from fused_attention.ops.paged.quantization import LARGEST

from ..helpers.caches import (
    FLOATS,
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    LAYERS,
    CachedDecoder,
    attend_with,
    compare,
    dense,
    make,
    poison,
    run,
    sentence,
    snapshot,
    tokens_of,
    within_budget,
)
from ..helpers.support import every_leg, name_of


@every_leg
@pytest.mark.parametrize("page_size", [16, 48])
def test_token_by_token_is_the_same_as_all_at_once(device, page_size):
    cache = make(device, page_size=page_size)
    model = CachedDecoder(150).to(device)
    tokens = sentence(20, seed=1)
    seq = cache.new()
    logits = [run(model, cache, [seq], [[token]])[0] for token in tokens]
    compare(model, tokens, logits)


@every_leg
def test_chunked_prefill_beside_decode(device):
    """Prefill chunks, single tokens and empty chunks in one step, with blocks in random order."""
    cache = make(device)
    random.Random(0).shuffle(cache.pool._unused)
    model = CachedDecoder(150).to(device)
    texts = [sentence(n, seed=n) for n in (70, 33, 17)]
    seqs, logits = [cache.new() for _ in texts], [[] for _ in texts]
    for cuts in ([16, 1, 0], [0, 31, 16], [53, 0, 1], [1, 1, 0]):
        starts = [seq.length for seq in seqs]
        chunks = [t[at : at + n] for t, at, n in zip(texts, starts, cuts, strict=True)]
        for kept, new in zip(logits, run(model, cache, seqs, chunks), strict=True):
            kept.append(new)
    for text, each in zip(texts, logits, strict=True):
        compare(model, text, each)


def test_order_of_blocks_does_not_matter():
    model, results = CachedDecoder(150), []
    for seed in (None, 1, 2):
        cache = make()
        if seed:
            random.Random(seed).shuffle(cache.pool._unused)
        seqs = [cache.new(), cache.new()]
        run(model, cache, seqs, [sentence(50, 1), sentence(20, 2)])
        results.append(torch.cat(run(model, cache, seqs, [[1], [2, 3]])))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@every_leg
def test_forks_diverge_and_share_what_they_have_in_common(device):
    cache = make(device)
    model = CachedDecoder(150).to(device)
    prompt = sentence(40, seed=3)
    parent = cache.new()
    start = run(model, cache, [parent], [prompt])
    seqs = [parent, cache.fork(parent), cache.fork(parent)]
    used = cache.pool.num_blocks - cache.pool.num_free
    assert used == 3
    endings = [[1, 2], [3, 4], [5, 6]]
    logits = [[*start, new] for new in run(model, cache, seqs, endings)]
    assert cache.pool.num_blocks - cache.pool.num_free == 2 + 3  # 2 full pages, 3 partial ones
    for seq_logits, ending in zip(logits, endings, strict=True):
        compare(model, prompt + ending, seq_logits)


@every_leg
def test_a_rejected_speculation_leaves_no_trace(device):
    cache = make(device)
    model = CachedDecoder(150).to(device)
    tokens = sentence(45, seed=4)
    seq = cache.new()
    logits = run(model, cache, [seq], [tokens[:30]])
    guessed = run(model, cache, [seq], [[*tokens[30:33], 0, 0]])  # three right, two wrong
    cache.truncate(seq, 33)
    logits += [guessed[0][:3], *run(model, cache, [seq], [tokens[33:]])]
    compare(model, tokens, logits)


@every_leg
def test_a_cached_prefix_gives_what_computing_it_gives(device):
    cache = make(device, prefix_cache=True)
    model = CachedDecoder(150).to(device)
    tokens = sentence(64, seed=5)
    first = cache.new(tokens)
    assert first.length == 0
    logits = run(model, cache, [first], [tokens])[0]
    cache.free(first)
    poison(cache, cache.pool._unused)
    for other, found in (
        (tokens, 63),
        (tokens[:50], 48),
        ([*tokens[:40], 0, 1, 2], 32),
        (tokens[1:], 0),
        (tokens[:16], 15),
        (tokens[:15], 0),
    ):
        seq = cache.new(torch.tensor(other))
        assert seq.length == found
        new = run(model, cache, [seq], [other[found:]])[0]
        compare(model, other, [logits[:found], new])
        cache.free(seq)
    cache.check()


def test_without_prefix_cache_nothing_is_found():
    cache, model, tokens = make(), CachedDecoder(150), sentence(64, seed=5)
    run(model, cache, [cache.new(tokens)], [tokens])
    assert cache.new(tokens).length == 0


@every_leg
@pytest.mark.parametrize("window", [0, 20])
def test_a_window_costs_no_more_blocks_than_it_sees(device, window):
    cache = make(device, window=window)
    model = CachedDecoder(150).to(device)
    tokens = sentence(100, seed=6)
    seq, logits = cache.new(), []
    for at in range(0, 100, 10):
        logits += run(model, cache, [seq], [tokens[at : at + 10]])
        poison(cache, cache.pool._unused)
    compare(model, tokens, logits, fa.sliding_window(window))
    held = cache.pool.num_blocks - cache.pool.num_free
    assert held == 7 - (90 - window) // 16 == len(seq.blocks) - seq.dropped


@every_leg
@pytest.mark.parametrize("dtype", FLOATS)
def test_attention_in_every_dtype(device, dtype):
    check_attention(make(device, dtype), dtype)


@every_leg
@pytest.mark.parametrize("kv_dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("given", [False, True], ids=["per_token", "per_head"])
def test_quantized_storage(device, kv_dtype, given):
    """Attention is within its budget on the stored values, and those within half a unit of k and v.

    A unit of fp8 is an eighth of the next power of two below, and at least 2**-9.
    """
    scales = torch.rand(LAYERS, 2, KV_HEADS) / 10 + 5 / LARGEST[kv_dtype] if given else None
    check_attention(make(device, kv_dtype=kv_dtype, kv_scales=scales), torch.float32)


def check_attention(cache, dtype):
    """Compare two layers with dense attention: a prefill step, then one token per sequence."""
    device = cache.device
    torch.manual_seed(1)
    lengths, seqs = (40, 21), [cache.new(), cache.new()]
    q, k, v = (
        [torch.randn(LAYERS, n, heads, HEAD_DIM).to(device, dtype) for n in lengths]
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    outs = []
    for rows in (slice(0, -1), slice(-1, None)):
        counts = [x[0, rows].shape[0] for x in k]
        with cache.step(seqs, counts) as step:
            out = [
                cache.attend(
                    i, *(torch.cat([x[i, rows] for x in each]) for each in (q, k, v)), step
                )
                for i in range(LAYERS)
            ]
        outs.append(torch.stack(out).split(counts, dim=1))
    for b, seq in enumerate(seqs):
        for i in range(LAYERS):
            found = torch.cat([outs[0][b][i], outs[1][b][i]])
            keys, values = (read(cache, i, seq, side) for side in (0, 1))
            check_storage(cache, i, seq, keys, k[b][i], values, v[b][i])
            args = (q[b][i], keys, values)
            exact = dense(fa.causal())(i, *(x.double() for x in args))
            plain = dense(fa.causal())(i, *(x.to(dtype) for x in args))
            within_budget(found, plain, exact)


def read(cache, layer, seq, side):
    """The keys or values of a sequence, dequantized."""
    blocks, kv, scales = seq.blocks.tolist(), cache.kv[layer], cache.scales[layer]
    if kv.dtype not in LARGEST:
        return kv[blocks, side].flatten(0, 1)[: seq.length]
    x = kv.view(torch.uint8)[blocks, side].view(kv.dtype)
    each = scales[side] if scales.ndim == 2 else scales[blocks, side]
    return (x.float() * each[..., None]).flatten(0, 1)[: seq.length]


def check_storage(cache, layer, seq, keys, k, values, v):
    """Assert that every input is stored as the nearest representable number."""
    scales = cache.scales[layer]
    if scales is None:
        assert torch.equal(keys, k) and torch.equal(values, v)
        return
    for side, (found, x) in enumerate(((keys, k), (values, v))):
        unit = scales[side] if scales.ndim == 2 else scales[seq.blocks.tolist(), side]
        unit = unit.expand(len(seq.blocks), cache.page_size, -1).flatten(0, 1)[
            : seq.length, :, None
        ]
        if cache.kv[layer].dtype == torch.float8_e4m3fn:
            power = torch.exp2(torch.floor(torch.log2((x / unit).abs().clamp(min=2**-6))))
            unit = unit * power / 8
        assert (found - x).abs().sub(unit * (0.5 + 1e-5)).max() <= 0


def test_scales_are_for_quantized_storage():
    assert make().scales == [None] * LAYERS
    per_token = make(kv_dtype=torch.int8)
    assert per_token.scales[0].shape == (40, 2, 16, KV_HEADS)
    given = torch.rand(LAYERS, 2, KV_HEADS) + 0.1
    assert torch.equal(torch.stack(make(kv_dtype=torch.int8, kv_scales=given).scales), given)


def test_copies_on_write_carry_the_scales():
    cache = make(kv_dtype=torch.int8)
    model, seq = CachedDecoder(150), cache.new()
    run(model, cache, [seq], [sentence(20, 1)])
    twin = cache.fork(seq)
    expected = [read(cache, i, seq, side) for i in range(LAYERS) for side in (0, 1)]
    run(model, cache, [twin], [[1]])
    assert seq.blocks[1] != twin.blocks[1]
    cache.free(seq)
    poison(cache, cache.pool._unused)
    found = [read(cache, i, twin, side)[:20] for i in range(LAYERS) for side in (0, 1)]
    assert all(map(torch.equal, found, expected))


NAMES = ("block_table", "seq_lens", "cu_seqlens_q", "slot_mapping", "positions", "last")


def test_step_tensors():
    cache = make(max_seq_len=64)
    a, b, c = (cache.new() for _ in range(3))
    with cache.step([a, b, c], [17, 0, 2]) as step:
        assert step.block_table.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0]]
        assert step.seq_lens.tolist() == [17, 0, 2]
        assert step.cu_seqlens_q.tolist() == [0, 17, 17, 19]
        assert step.slot_mapping.tolist() == [*range(17), 32, 33]
        assert step.positions.tolist() == [*range(17), 0, 1]
        assert step.last.tolist() == [16, 16, 18]
        assert (step.num_tokens, step.max_seqlen_q) == (19, 17)
        step.mark_written()
    with cache.step([c, a], 1) as step:
        assert step.positions.tolist() == [2, 17]
        assert step.slot_mapping.tolist() == [34, 17]
        assert step.last.tolist() == [0, 1]
        step.mark_written()


def test_a_captured_graph_reads_the_metadata_of_the_open_step():
    """The metadata keeps its addresses; a smaller step resets the entries it does not use."""
    cache = make()
    seqs = [cache.new() for _ in range(4)]
    with cache.step(seqs, 20) as step:
        addresses = [getattr(step, name).data_ptr() for name in NAMES]
        step.mark_written()
    with cache.step(seqs[:2], [1, 2]) as step:
        assert [getattr(step, name).data_ptr() for name in NAMES] == addresses
        tensors = cache._tensors
        assert tensors.seq_lens.tolist() == [21, 22, 0, 0]
        assert tensors.cu_seqlens_q.tolist() == [0, 1, 3, 3, 3]
        assert tensors.slot_mapping[3:].unique().tolist() == [-1]
        assert tensors.positions[3:].unique().tolist() == [0]
        assert tensors.last.tolist() == [0, 2, 0, 0]
        assert set(tensors.block_table.unique().tolist()) <= set(range(40))
        step.mark_written()


@pytest.mark.gpu
def test_a_cuda_graph_decodes():
    """A graph captured once and replayed for every token gives the same logits as eager mode."""
    model, tokens, results = CachedDecoder(150).cuda(), sentence(60, seed=7), []
    for graphed in (False, True):
        cache, logits = make("cuda"), []
        seqs = [cache.new(), cache.new()]
        run(model, cache, seqs, [tokens[:30], tokens[:20]])
        fed = torch.zeros(2, dtype=torch.int64, device="cuda")
        graph, out = None, None
        for at in range(20):
            fed.copy_(torch.tensor([tokens[30 + at], tokens[20 + at]]))
            with cache.step(seqs, 1) as step:
                attend = partial(attend_with, cache, step)
                if graph is None:
                    out = model(fed, step.positions, attend)
                if graphed and graph is None:
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        out = model(fed, step.positions, attend)
                if graph is not None:
                    graph.replay()
                    step.mark_written()
            logits.append(out.clone())
        results.append(torch.stack(logits))
    assert torch.equal(*results)


@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_steps_without_tokens(counts):
    cache = make()
    seqs = [cache.new() for _ in counts]
    with cache.step(seqs, counts) as step:
        out, lse = cache.attend(0, *tokens_of(step), step, return_lse=True)
    assert out.shape == (0, HEADS, HEAD_DIM) and lse.shape == (0, HEADS)
    assert cache.pool.num_free == 40


def test_a_step_that_raises_is_undone():
    cache, model = make(), CachedDecoder(150)
    seq = cache.new()
    run(model, cache, [seq], [sentence(20, 1)])
    twin, free = cache.fork(seq), cache.pool.num_free
    with pytest.raises(ZeroDivisionError), cache.step([seq, twin], [40, 1]) as step:
        assert cache.pool.num_free < free
        raise ZeroDivisionError
    assert (seq.length, twin.length, cache.pool.num_free) == (20, 20, free)
    cache.check()
    with pytest.raises(RuntimeError, match="step: expected the step of this cache that is open"):
        cache.attend(0, *tokens_of(step), step)


@every_leg
@pytest.mark.parametrize("attended", [(), (0,), (1,), (0, 2), (2, 2, 0)])
def test_a_step_that_leaves_out_a_layer_is_undone(attended, device):
    """Nothing is published either, so that nobody reads a page that was not written."""
    cache = fa.PagedKVCache(
        *(3, KV_HEADS, HEAD_DIM),
        dtype=torch.float32,
        num_blocks=40,
        page_size=16,
        max_seqs=4,
        max_seq_len=150,
        prefix_cache=True,
        device=device,
    )
    tokens = sentence(40, seed=8)
    seq = cache.new(tokens)

    def feed(layers):
        with cache.step([seq], len(tokens)) as step:
            for layer in layers:
                cache.attend(layer, *(x.to(device) for x in tokens_of(step)), step)

    before = snapshot(cache)
    missing = ", ".join(str(layer) for layer in range(3) if layer not in attended)
    with pytest.raises(RuntimeError, match=f"layers were not attended: {missing}; call"):
        feed(attended)
    assert snapshot(cache) == before
    assert cache.new(tokens).length == 0
    feed((2, 0, 1, 0))
    assert seq.length == 40 and cache.new(tokens).length == 32
    cache.check()


def test_what_the_body_raises_comes_before_the_layers_it_left_out():
    cache = make()
    with pytest.raises(ZeroDivisionError), cache.step([cache.new()], 1):
        raise ZeroDivisionError


def test_a_step_begun_again_is_attended_again():
    cache = make()
    seq = cache.new()
    step = cache.step([seq], 1)
    with step:
        step.mark_written()
    with pytest.raises(RuntimeError, match="not attended: 0, 1;"), step:
        pass
    assert seq.length == 1
    with pytest.raises(RuntimeError, match="step: expected the step of this cache that is open"):
        step.mark_written()


@pytest.mark.gpu
def test_capturing_a_cuda_graph_writes_nothing():
    cache = make("cuda")
    with (
        pytest.raises(RuntimeError, match="not attended: 0;"),
        cache.step([cache.new()], 1) as step,
    ):
        q, k, v = (x.cuda() for x in tokens_of(step))
        cache.attend(1, q, k, v, step)
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            cache.attend(0, q, k, v, step)


def test_a_step_that_cannot_be_prepared_is_undone(monkeypatch):
    cache = make()
    seq = cache.new()

    def fails(*args):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(step_tensors.StepTensors, "fill", fails)
    with pytest.raises(torch.OutOfMemoryError), cache.step([seq], 5):
        pass
    assert cache.pool.num_free == 40
    with pytest.raises(torch.OutOfMemoryError), cache.step([seq], 5):  # no step is left open
        pass


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64])
def test_integers_of_numpy(kind):
    """Lengths are ints, which do not wrap where an int8 would."""
    one = kind(1)
    cache = fa.PagedKVCache(
        *(one, one, kind(16)),
        num_blocks=kind(40),
        page_size=kind(16),
        dtype=torch.float32,
        window=kind(100),
        max_seqs=kind(2),
        max_seq_len=np.int64(400),
        prefix_cache=True,
    )
    seqs = [cache.new(list(map(kind, range(100)))), cache.new()]
    for n_new in ([kind(100), one], [kind(100), one], [kind(100), one], kind(2)):
        with cache.step(seqs, n_new) as step:
            cache.attend(kind(0), *tokens_of(step, 1, 1), step)
    assert [seq.length for seq in seqs] == [302, 5]
    assert step.n_new == [2, 2] and step.num_tokens == 4
    cache.truncate(seqs[1], kind(3))
    assert all(type(seq.length) is int for seq in seqs)
    cache.check()


# Bad input


def test_a_window_is_causal():
    cache = make(window=4)
    with (
        pytest.raises(ValueError, match="causal: expected True where the cache has a window"),
        cache.step([cache.new()], 3) as step,
    ):
        cache.attend(0, *tokens_of(step), step, causal=False)
    assert cache.kv[0].isnan().all()  # nothing was written


def test_not_causal_and_other_variants():
    cache, variant = make(), fa.softcap(2.0)
    with cache.step([cache.new()], 30) as step:
        q, k, v = tokens_of(step)
        out, lse = cache.attend(0, q, k, v, step, variant, causal=False, scale=0.3, return_lse=True)
        step.mark_written()
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    plain = fa.reference.attention(q, k, v, variant, scale=0.3)
    exact = fa.reference.attention(*(x.double() for x in (q, k, v)), variant, scale=0.3)
    within_budget(out.transpose(0, 1)[None], plain.out, exact.out)
    within_budget(lse.T[None], plain.lse, exact.lse)


def test_truncation_beyond_the_window():
    cache, model = make(window=20), CachedDecoder(150)
    seq = cache.new()
    for _ in range(10):
        run(model, cache, [seq], [sentence(10, 1)])
    before = snapshot(cache)
    assert seq.dropped == (90 - 20) // 16
    with pytest.raises(ValueError, match="expected 0, or at least 84"):
        cache.truncate(seq, 83)
    assert snapshot(cache) == before
    cache.truncate(seq, 84)
    cache.truncate(seq, 0)
    assert cache.pool.num_free == 40
    run(model, cache, [seq], [sentence(10, 1)])


def test_storage_dtype_and_repr():
    assert name_of(make(dtype=torch.bfloat16).kv[0].dtype) == "bfloat16"
    assert make(kv_dtype=torch.bfloat16).kv[0].shape == (40, 2, 16, KV_HEADS, HEAD_DIM)
    cache = make()
    seq = cache.new()
    assert repr(seq) == "<Seq length=0>"
    cache.free(seq)
    assert repr(seq) == "<Seq freed>"
