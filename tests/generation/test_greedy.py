"""Greedy tokens are those of recomputing the whole sequence for each token."""

from random import Random

import pytest
import torch

import fused_attention as fa
from fused_attention.generation.request import Request

from ..helpers.support import every_leg
from .models import cache_of, make, recomputed


def a_request(rng):
    """A random model, draft and prompts, and random arguments of `generate`."""
    heads = rng.choice([1, 2, 4])
    options = {
        "dim": heads * rng.choice([4, 8]),
        "num_heads": heads,
        "num_kv_heads": rng.choice([h for h in (1, 2, 4) if heads % h == 0]),
        "head_dim": rng.choice([None, None, 12]),
        "rotary_scaling": rng.choice([None, fa.RotaryScaling(4.0, 20)]),
        "num_layers": rng.choice([1, 2]),
        "hidden_dim": rng.choice([8, 24]),
        "max_seq_len": 64,
        "num_buckets": 8,
        "max_distance": 9,
        "tied": rng.random() < 0.5,
        "prenorm": rng.random() < 0.7,
        "window": rng.choice([None, None, 0, 5, 20]),
        "position": rng.choice(["learned", "sinusoidal", "rotary", "alibi", "t5", "none"]),
        "activation": rng.choice(["gelu", "gelu_tanh", "relu", "swiglu", "geglu"]),
        "norm": rng.choice(["layer", "rms"]),
        "bias": rng.random() < 0.5,
        "scale_embeddings": rng.random() < 0.3,
    }
    model = make(rng.randrange(1000), **options)
    draft = rng.choice([None, make(rng.randrange(1000), dim=8, num_heads=1, max_seq_len=64), model])
    lengths = [rng.choice([1, 2, 5, 15, 16, 17, 31, 33, 40]) for _ in range(rng.randint(1, 4))]
    prompts = [[rng.randrange(50) for _ in range(length)] for length in lengths]
    stop = [rng.randrange(50) for _ in range(rng.choice([0, 0, 6]))]
    return model, draft, prompts, rng.choice([1, 2, 7, 11]), rng.choice([1, 1, 3]), stop


@pytest.mark.parametrize("group", range(10))
def test_greedy_is_recomputation(group):
    """200 random configurations, in a cache that has just the pages that `Request` counts."""
    generated = set()
    for seed in range(20 * group, 20 * group + 20):
        rng = Random(seed)
        model, draft, prompts, count, copies, stop = a_request(rng)
        cache = cache_of(model, Request(prompts, copies, count).blocks(16), copies * len(prompts))
        found = model.generate(
            prompts,
            count,
            temperature=0,
            num_return_sequences=copies,
            stop=stop,
            draft=draft,
            num_draft_tokens=rng.choice([1, 3, 6]),
            cache=rng.choice([cache, cache, None]),
        )
        expected = [recomputed(model, prompt, count, stop) for prompt in prompts]
        assert found == [tokens for tokens in expected for _ in range(copies)], seed
        assert cache.pool.num_free == cache.pool.num_blocks
        cache.check()
        generated.update(*found)
    assert len(generated) > 25, "tokens that hardly differ prove little"


@every_leg
def test_greedy_on_every_leg(device):
    model = make(position="rotary", num_kv_heads=2, num_layers=1).to(device)
    prompts = [[3, 1, 4, 1, 5], [9]]
    found = model.generate(prompts, 3, temperature=0, draft=model, num_draft_tokens=1)
    assert found == [recomputed(model.cpu(), prompt, 3) for prompt in prompts]


def test_dropout_is_off_meanwhile():
    model = make(dropout=0.5, attention_dropout=0.5).train()
    model.stack.blocks[0].eval()
    found = model.generate([[1, 2, 3]], 8, temperature=0)
    assert model.training and not model.stack.blocks[0].training and model.stack.training
    assert found == [recomputed(model.eval(), [1, 2, 3], 8)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """With 16-bit weights or autocast, the cache has the dtype of keys and values."""
    model, prompts = make(position="rotary"), [[1, 2, 3], [4]]
    with torch.autocast("cpu", dtype):
        found = model.generate(prompts, 5, temperature=0)
    assert list(map(len, found)) == [5, 5]
    assert list(map(len, model.to(dtype).generate(prompts, 5, temperature=0))) == [5, 5]
