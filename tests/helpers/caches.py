"""Paged caches filled with NaN, a small decoder that uses them, and its exact logits."""

import random
from functools import partial

import torch

import fused_attention as fa
from fused_attention.ops.paged.quantization import LARGEST

from .budget import distance, largest
from .support import poisoned

VOCABULARY, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 50, 2, 6, 2, 16
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class CachedDecoder(torch.nn.Module):
    """Layers of attention alone, between an embedding and its transpose."""

    def __init__(self, max_len: int):
        super().__init__()
        torch.manual_seed(0)
        hidden = HEADS * HEAD_DIM
        self.embedding = torch.nn.Embedding(VOCABULARY, hidden)
        self.position = torch.nn.Embedding(max_len, hidden)
        width = hidden + 2 * KV_HEADS * HEAD_DIM
        self.project = torch.nn.ModuleList(torch.nn.Linear(hidden, width) for _ in range(LAYERS))
        self.out = torch.nn.ModuleList(torch.nn.Linear(hidden, hidden) for _ in range(LAYERS))

    @torch.no_grad()
    def forward(self, tokens, positions, attend):
        """(tokens,) -> logits; ``attend(layer, q, k, v)`` on (tokens, heads, head_dim)."""
        x = self.embedding(tokens) + self.position(positions)
        for layer, (project, out) in enumerate(zip(self.project, self.out, strict=True)):
            heads = project(x).unflatten(-1, (-1, HEAD_DIM))
            q, k, v = heads.split([HEADS, KV_HEADS, KV_HEADS], dim=1)
            x = x + out(attend(layer, q, k, v).flatten(1))
        return x @ self.embedding.weight.T


def dense(variant):
    """Reference attention of one whole sequence."""

    def attend(layer, q, k, v):
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        return fa.reference.attention(q, k, v, variant).out[0].transpose(0, 1)

    return attend


def whole(model, tokens, variant=None):
    """Logits of every token of one sequence, computed in one call without a cache."""
    tokens = torch.as_tensor(tokens, device=model.embedding.weight.device)
    positions = torch.arange(len(tokens), device=tokens.device)
    return model(tokens, positions, dense(variant or fa.causal()))


def within_budget(found, plain, exact):
    """Assert: error at most twice the naive error plus half an ulp of the largest result."""
    assert found.shape == exact.shape
    allowed, half_ulp = distance(plain, exact), torch.finfo(plain.dtype).eps / 2
    error = distance(found, exact)
    assert error <= 2 * allowed + half_ulp * largest(exact.abs()), (error, allowed)


def make(device="cpu", dtype=torch.float32, **options):
    options = {"num_blocks": 40, "page_size": 16, "max_seqs": 4, "max_seq_len": 150} | options
    cache = fa.PagedKVCache(LAYERS, KV_HEADS, HEAD_DIM, dtype=dtype, device=device, **options)
    poison(cache, range(cache.pool.num_blocks))
    return cache


def poison(cache, blocks):
    for tensors in (cache.kv, cache.scales):
        for stored in tensors:
            if stored is not None and stored.ndim > 2:
                bits = stored.view(torch.uint8) if stored.dtype in LARGEST else stored
                # The largest number of int8 and the NaN of fp8.
                bits[list(blocks)] = 0x7F if stored.dtype in LARGEST else torch.nan


def run(model, cache, seqs, chunks):
    """Feed each of ``seqs`` its chunk of tokens in one step; returns the logits per sequence."""
    device = model.embedding.weight.device
    tokens = torch.tensor([t for chunk in chunks for t in chunk], device=device)
    with cache.step(seqs, [len(chunk) for chunk in chunks]) as step, poisoned():
        logits = model(tokens, step.positions, partial(attend_with, cache, step))
        last = [logits[row] for row in step.last]
    logits = logits.split([len(chunk) for chunk in chunks])
    for chunk, each, row in zip(chunks, logits, last, strict=True):
        assert not chunk or torch.equal(row, each[-1])
    return list(logits)


def attend_with(cache, step, layer, q, k, v):
    return cache.attend(layer, q, k, v, step)


def sentence(length, seed):
    return random.Random(seed).choices(range(VOCABULARY), k=length)


def compare(model, tokens, logits, variant=None):
    exact = whole(model.double(), tokens, variant)
    plain = whole(model.float(), tokens, variant)
    within_budget(torch.cat(logits), plain, exact)


def tokens_of(step, heads=HEADS, kv_heads=KV_HEADS, dim=HEAD_DIM, dtype=torch.float32, extra=0):
    n = step.num_tokens + extra
    return tuple(torch.randn(n, h, dim, dtype=dtype) for h in (heads, kv_heads, kv_heads))


def snapshot(cache):
    tables = {s: (s.length, s.blocks.tolist(), s.dropped) for s in cache._tables.live}
    return tables, list(cache.pool._refs), sorted(cache.pool._unused)
