"""Masked tokens change nothing, bit for bit."""

import pytest
import torch

import fused_attention as fa
from fused_attention.models import TransformerXL

from .cases import LENGTHS, ModelCase, bert, build, config, gpt, ids, seq2seq, xl

BACKENDS = pytest.mark.parametrize("attention", ["fused", "naive", "sdpa"])


def changed(tokens, at):
    """The tokens, all changed from position ``at`` on, which is one number or one per row."""
    positions = torch.arange(tokens.shape[1])
    return torch.where(positions < torch.as_tensor(at)[..., None], tokens, (tokens + 1) % 50)


@BACKENDS
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "alibi", "t5", "none"])
def test_later_tokens_do_not_leak(position, attention):
    model = build(gpt(position=position), attention)
    before, after = model(ids(2, 11)), model(changed(ids(2, 11), 5))
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(-1).all()


@BACKENDS
def test_later_tokens_do_not_leak_through_a_memory(attention):
    model = build(xl(), attention)
    _, memory = model(ids(2, 6))
    (before, _), (after, _) = model(ids(2, 9), memory), model(changed(ids(2, 9), 5), memory)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(-1).all()


@BACKENDS
def test_later_targets_do_not_leak(attention):
    model = build(seq2seq(position="t5"), attention)
    source, target = ids(2, 11), ids(2, 7, seed=1)
    before, after = model(source, target), model(source, changed(target, 3))
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any(-1).all()


@BACKENDS
def test_padding_does_not_leak(attention):
    model = build(bert(), attention)
    tokens, padded = ids(2, 11), changed(ids(2, 11), LENGTHS)
    before, after = (model(x, key_padding=LENGTHS) for x in (tokens, padded))
    for row, length in enumerate(LENGTHS):
        assert torch.equal(before[row, :length], after[row, :length])
        alone = model(tokens[row : row + 1, :length])
        torch.testing.assert_close(alone[0], before[row, :length], rtol=1e-4, atol=1e-5)
    assert not torch.equal(model(tokens), model(padded))


@BACKENDS
def test_padded_sources_do_not_leak(attention):
    model = build(seq2seq(position="sinusoidal"), attention)
    target = ids(2, 7, seed=1)
    before, after = (model(x, target, LENGTHS) for x in (ids(2, 11), changed(ids(2, 11), LENGTHS)))
    assert torch.equal(before, after)
    assert not torch.equal(before, model(ids(2, 11), target))


@pytest.mark.parametrize("prenorm", [True, False])
def test_segments_see_what_one_long_segment_sees(prenorm):
    """With a memory of the whole sequence, cutting it into segments changes nothing."""
    options = config(position="xl", prenorm=prenorm)
    case = ModelCase(lambda: TransformerXL(options, memory_length=12), call=None)
    model = build(case, dtype=torch.float64)
    whole, _ = model(ids(2, 13))
    memory, parts = (), []
    for part in ids(2, 13).split([5, 1, 7], 1):
        out, memory = model(part, memory)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-11, atol=1e-11)
    assert not any(m.requires_grad for m in memory)
    # Pre-norm blocks remember the residual, which is normalized by current weights when read.
    assert torch.equal(memory[0], model.embedding(ids(2, 13))[:, 1:])


def test_relative_scores_against_the_formula():
    """Dai et al. 2019, section 3.3, score by score."""
    model = build(xl(num_layers=1), dtype=torch.float64)
    x = torch.randn(1, 4, 32, dtype=torch.float64)
    before = torch.randn(1, 3, 32, dtype=torch.float64)
    attention = model.stack.blocks[0].attention
    seen = {}
    attention.core.register_forward_pre_hook(lambda m, args: seen.update(args=args))
    attention(x, (fa.causal(),), model.stack.positions, past=before)
    q, k, v, variants = seen["args"]
    found = fa.reference.attention(q, k, v, variants, return_weights=True).weights
    queries, keys, _ = attention.project(x, torch.cat([before, x], 1))
    distances = torch.arange(7, dtype=torch.float64)
    frequencies = 10000 ** (-torch.arange(0, 32, 2, dtype=torch.float64) / 32)
    angles = distances[:, None] * frequencies
    rows = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    r = attention.r(rows).unflatten(-1, (4, 8))
    scores = torch.full((4, 4, 7), -torch.inf, dtype=torch.float64)
    for h in range(4):
        for i in range(4):
            for j in range(i + 3 + 1):
                query = queries[0, i, h]
                content = (query + attention.u[h, 0]) @ keys[0, j, h]
                place = (query + attention.v[h, 0]) @ r[i + 3 - j, h]
                scores[h, i, j] = (content + place) / 8**0.5
    torch.testing.assert_close(found[0], scores.softmax(-1), rtol=1e-11, atol=1e-12)


def cache_of(first: int, second: int):
    """A fake paged cache: two sequences end to end, whose attention is the reference."""

    class Step:
        positions = torch.cat([torch.arange(first), torch.arange(second)])

    class Cache:
        layers = ()

        def attend(self, layer, q, k, v, step, variants):
            self.layers += (layer,)
            parts = []
            for sequence in zip(*(x.split([first, second]) for x in (q, k, v)), strict=True):
                dense = (x.transpose(0, 1)[None] for x in sequence)
                out = fa.reference.attention(*dense, (*variants, fa.causal())).out
                parts.append(out[0].transpose(0, 1))
            return torch.cat(parts)

    return Cache(), Step()


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "alibi", "t5", "none"])
def test_ragged_tokens(position, prenorm):
    """Two sequences end to end on a cache give the same logits as each on its own."""
    case = gpt(position=position, prenorm=prenorm, num_kv_heads=2, num_buckets=8, max_distance=6)
    model = build(case, dtype=torch.float64)
    first, second = ids(1, 11), ids(1, 4, seed=1)
    cache, step = cache_of(11, 4)
    found = model(torch.cat([first, second], 1)[0], cache=cache, step=step)
    assert cache.layers == (0, 1)
    expected = torch.cat([model(first)[0], model(second)[0]])
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
