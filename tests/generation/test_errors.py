"""Wrong arguments raise errors that name them, before anything is allocated."""

import numpy as np
import pytest
import torch

from fused_attention.models import GPT

from ..models.cases import config
from .models import cache_of, make


def test_no_prompts():
    assert make().generate([], 3) == []


MODEL = make()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prompts": [[1], []]}, ValueError, "prompts: expected a token at least, number 1 is"),
        ({"prompts": [[1, 50]]}, ValueError, "prompts: expected from 0 to 49, got 50"),
        ({"prompts": [[-1]]}, ValueError, "prompts: expected from 0 to 49, got -1"),
        ({"prompts": [[1.5]]}, TypeError, "prompts: expected an int, got float"),
        ({"prompts": ["text"]}, TypeError, "prompts: expected token ids, got str"),
        ({"prompts": [1]}, TypeError, "prompts: expected token ids, got int"),
        ({"prompts": [torch.ones(2)]}, TypeError, "prompts: expected ints of one dimension"),
        ({"prompts": [torch.ones(1, 2).int()]}, TypeError, "prompts: expected ints of one dim"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens: expected at least 1, got 0"),
        ({"max_new_tokens": 15}, ValueError, "max_new_tokens: the model has 16 positions, .* 14"),
        (
            {"prompts": [[1], [1] * 15], "max_new_tokens": 2},
            ValueError,
            "max_new_tokens: the model has 16 positions, expected at most 1 beside",
        ),
        (
            {"prompts": [[1], [1] * 16], "max_new_tokens": 1},
            ValueError,
            "prompts: the model has 16 positions, expected at most 15 tokens in a prompt, got 16",
        ),
        (
            {"prompts": [[1] * 40]},
            ValueError,
            "prompts: the model .* 15 tokens in a prompt, got 40",
        ),
        (
            {"prompts": [[1] * 8], "draft": make(max_seq_len=5)},
            ValueError,
            "prompts: the draft has 5 positions, expected at most 4 tokens in a prompt, got 8",
        ),
        ({"temperature": -1}, ValueError, "temperature: expected 0 or a positive number, got -1"),
        ({"temperature": float("nan")}, ValueError, "temperature: expected 0 or a positive"),
        ({"temperature": None}, ValueError, "temperature: expected 0 or a positive"),
        ({"temperature": "hot"}, TypeError, "temperature: expected a number, got str"),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1, got 0"),
        ({"top_p": 0}, ValueError, "top_p: expected more than 0 and at most 1, got 0"),
        ({"top_p": 1.1}, ValueError, "top_p: expected more than 0 and at most 1, got 1.1"),
        ({"num_return_sequences": 0}, ValueError, "num_return_sequences: expected at least 1"),
        ({"num_draft_tokens": 0}, ValueError, "num_draft_tokens: expected at least 1"),
        ({"stop": [50]}, ValueError, "stop: expected from 0 to 49, got 50"),
        ({"seed": "a"}, TypeError, "seed: expected an int, got str"),
        ({"on_token": 3}, TypeError, "on_token: expected a function, got int"),
        ({"draft": make(vocab_size=49)}, ValueError, "draft: expected the model's vocab_size, 50"),
        ({"draft": make(max_seq_len=5)}, ValueError, "the draft has 5 positions, .* at most 3"),
        ({"draft": GPT(config(), attention="naive")}, NotImplementedError, "draft: a paged cache"),
        ({"cache": {}}, TypeError, "cache: expected a PagedKVCache, got dict"),
        ({"cache": cache_of(MODEL, 9, 1)}, ValueError, "cache: .* at least 2 max_seqs, got 1"),
        ({"cache": cache_of(MODEL, 1, 2)}, ValueError, "cache: .* at least 4 free blocks, got 1"),
        ({"cache": cache_of(make(num_kv_heads=2), 9, 2)}, ValueError, "cache: .* num_kv_heads 4"),
        ({"cache": cache_of(make(window=3), 9, 2)}, ValueError, "cache: .* window None"),
    ],
)
def test_errors(options, error, message, monkeypatch):
    def allocated(*args, **kwargs):
        raise AssertionError("a cache was made")

    monkeypatch.setattr("fused_attention.generation.request.PagedKVCache.__init__", allocated)
    with pytest.raises(error, match=message):
        MODEL.generate(**{"prompts": [[1, 2], [3]], "max_new_tokens": 4, **options})


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64])
def test_integers_of_numpy(kind):
    options = {"top_k": 5, "num_return_sequences": 2, "seed": 3, "stop": 7}
    expected = MODEL.generate([[1, 2], [3]], 4, **options)
    given = {name: kind(value) for name, value in options.items()}
    prompts = [np.array([1, 2], kind), [kind(3)]]
    assert MODEL.generate(prompts, kind(4), **given) == expected


def test_attention_that_has_no_cache():
    with pytest.raises(NotImplementedError, match="model: a paged cache needs attention 'fused'"):
        GPT(config(), attention="sdpa").generate([[1]], 2)
