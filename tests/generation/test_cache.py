"""Pages: shared prompts, prefix caches, and pages that are freed at the end or on an error."""

import pytest

from .models import cache_of, make, recomputed


def test_tokens_are_streamed_and_stop_tokens_end_a_sequence():
    model = make(max_seq_len=64)
    prompts = [[1, 2, 3], [4]]
    whole = [recomputed(model, prompt, 10) for prompt in prompts]
    stop = whole[0][1]
    streamed = []
    cache = cache_of(model, 4, 2)
    held = []

    def listen(index, token):
        streamed.append((index, token))
        held.append(cache.pool.num_blocks - cache.pool.num_free)

    found = model.generate(prompts, 10, temperature=0, stop=stop, on_token=listen, cache=cache)
    assert found == [tokens[: [*tokens, stop].index(stop) + 1] for tokens in whole]
    assert len(found[0]) == 2 and len(found[1]) > len(found[0])
    for i, tokens in enumerate(found):
        assert [token for index, token in streamed if index == i] == tokens
    assert streamed[0][0] == 0 and streamed[1][0] == 1, "side by side, not one after the other"
    assert held[0] == 2 and held[-1] == 1, "the sequence that ended gave its page back"


def test_a_prompt_is_stored_once():
    model = make(max_seq_len=100)
    cache = cache_of(model, 40, 8)
    used = []
    model.generate(
        [[7] * 64],
        10,
        num_return_sequences=8,
        cache=cache,
        on_token=lambda *_: used.append(cache.pool.num_blocks - cache.pool.num_free),
    )
    assert used[0] == 4 and max(used) == 4 + 8


def test_a_prefix_cache_is_used(monkeypatch):
    model = make(max_seq_len=100)
    cache = cache_of(model, 20, 1, prefix_cache=True)
    prompt = [i % 50 for i in range(40)]
    fed = []
    hidden = model.hidden
    monkeypatch.setattr(
        model, "hidden", lambda ids, **options: (fed.append(len(ids)), hidden(ids, **options))[1]
    )
    first, second = (model.generate([prompt], 3, temperature=0, cache=cache) for _ in range(2))
    assert first == second == [recomputed(model, prompt, 3)]
    assert fed[:6] == [40, 1, 1, 8, 1, 1]


@pytest.mark.parametrize("drafted", [False, True])
def test_pages_come_back_when_a_listener_raises(drafted):
    model = make(max_seq_len=64)
    cache = cache_of(model, 8, 4)
    model.train()

    def listen(index, token):
        if index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate(
            [[1], [2]],
            5,
            on_token=listen,
            cache=cache,
            draft=make(max_seq_len=64) if drafted else None,
        )
    assert cache.pool.num_free == 8 and model.training
    cache.check()
