"""Logits that are not finite: the one token they leave, or an error that names where.

Seen failing on: token 0 for logits of -inf or of several +inf, NaN probabilities for one +inf.
"""

import math

import pytest
import torch

from fused_attention.generation.sampling import distribution

from .models import make

SAMPLINGS = {
    "greedy": {"temperature": 0},
    "plain": {"temperature": 1.0},
    "cold": {"temperature": 1e-3},
    "top_k": {"temperature": 0.7, "top_k": 3},
    "top_p": {"temperature": 1.3, "top_p": 0.8},
}
every_sampling = pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
inf = math.inf
UNUSABLE = {
    "nan": ([0.0, math.nan, 1.0, inf], "expected numbers, the model computed NaN"),
    "all_nan": ([math.nan] * 4, "expected numbers, the model computed NaN"),
    "all_minus_inf": ([-inf] * 4, "expected a possible token, the model computed -inf for all"),
    "two_inf": ([inf, 1.0, inf, 0.0], r"expected at most one \+inf, the model computed several"),
}


def scripted(monkeypatch, model, last=None):
    """Make ``model`` continue every token by the next one, the only logit of +inf.

    After token 9 the logits are ``last``, repeated, if it is given.
    """
    count = model.config.vocab_size
    table = torch.zeros(count, count).fill_diagonal_(inf).roll(1, 1)
    if last is not None:
        table[9] = torch.tensor(last).repeat(count)[:count]
    hidden = model.hidden

    def tokens(input_ids, **options):
        hidden(input_ids, **options)  # writes the cache
        return input_ids[:, None]

    monkeypatch.setattr(model, "hidden", tokens)
    monkeypatch.setattr(model, "logits", lambda tokens: table[tokens[:, 0]])
    return model


@every_sampling
@pytest.mark.parametrize("values, words", UNUSABLE.values(), ids=UNUSABLE)
def test_rows_without_a_distribution_are_named(sampling, values, words):
    options = {"top_k": None, "top_p": None} | sampling
    logits = torch.zeros(3, 4)
    logits[1] = torch.tensor(values)
    with pytest.raises(ValueError, match=f"logits: {words} at row 1"):
        distribution(logits, **options)


@every_sampling
def test_one_infinite_logit_is_certain(sampling):
    options = {"top_k": None, "top_p": None} | sampling
    logits = torch.tensor([[1.0, 2.0, 3.0, -inf], [1.0, inf, 3.0, -inf]])
    p = distribution(logits, **options)
    assert p[1].tolist() == [0, 1, 0, 0]
    assert p[:1].equal(distribution(logits[:1], **options)), "other rows stay as they are"
    assert p[0, 3] == 0


@every_sampling
@pytest.mark.parametrize("drafted", [False, True])
def test_one_infinite_logit_is_the_next_token(sampling, drafted, monkeypatch):
    model, draft = (scripted(monkeypatch, make(seed, max_seq_len=64)) for seed in (0, 1))
    found = model.generate([[1, 2], [30]], 6, draft=draft if drafted else None, **sampling)
    assert found == [[3, 4, 5, 6, 7, 8], [31, 32, 33, 34, 35, 36]]


@every_sampling
@pytest.mark.parametrize("culprit", ["model", "model with a draft", "draft"])
@pytest.mark.parametrize("values, words", UNUSABLE.values(), ids=UNUSABLE)
def test_generate_names_sequence_and_position(sampling, culprit, values, words, monkeypatch):
    """Sequences 2 and 3 begin with 3 tokens, and token 9 is their fifth."""
    of_model, of_draft = (None, values) if culprit == "draft" else (values, None)
    model = scripted(monkeypatch, make(max_seq_len=64), of_model)
    draft = scripted(monkeypatch, make(1, max_seq_len=64), of_draft)
    options = {} if culprit == "model" else {"draft": draft, "num_draft_tokens": 3}
    seen = []
    with pytest.raises(ValueError, match=f"logits: {words} at position 5 of sequence 2"):
        model.generate(
            *([[1, 2], [30, 31, 7]], 9),
            num_return_sequences=2,
            on_token=lambda index, token: seen.append((index, token)),
            **options,
            **sampling,
        )
    assert (2, 8) in seen and all(token < 10 for _, token in seen)
