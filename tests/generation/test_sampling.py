"""Sampled tokens have the model's distribution, with a draft model as without."""

import pytest
import torch

from fused_attention.generation.sampling import distribution, sample

from .chi_square import check_counts
from .models import make


def exact_distribution(model, prompt, count, **sampling):
    """The probability of every continuation, from the naive model."""
    beliefs = {(): 1.0}
    model.attention = "naive"
    for _ in range(count):
        longer = {}
        for tokens, p in beliefs.items():
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *tokens]]))[0, -1:]
            following = distribution(logits, **sampling)[0].tolist()
            longer.update({(*tokens, t): p * q for t, q in enumerate(following) if q})
        beliefs = longer
    model.attention = "fused"
    return beliefs


@pytest.mark.parametrize("drafted", [False, True])
@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0, "top_k": None, "top_p": None},
        {"temperature": 0.7, "top_k": 3, "top_p": None},
        {"temperature": 1.3, "top_k": None, "top_p": 0.8},
    ],
    ids=["plain", "top_k", "top_p"],
)
def test_samples_have_the_distribution_of_the_model(drafted, sampling):
    """3,000 sequences of three tokens from a vocabulary of four: 64 possible outcomes."""
    small = {"vocab_size": 4, "dim": 8, "num_heads": 1, "num_layers": 1, "hidden_dim": 8}
    model = make(1, 0.4, **small)
    draft = make(2, 0.4, **small) if drafted else None
    prompt = [2, 0, 1]
    drawn = model.generate(
        [prompt], 3, num_return_sequences=3000, seed=0, draft=draft, num_draft_tokens=2, **sampling
    )
    drawn = [tuple(tokens) for tokens in drawn]
    expected = exact_distribution(model, prompt, 3, **sampling)
    check_counts(drawn, expected)
    if draft is not None:  # the test can tell the two models apart
        with pytest.raises(AssertionError):
            check_counts(drawn, exact_distribution(draft, prompt, 3, **sampling))


def test_distribution():
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0]])
    plain = logits.double().softmax(-1)

    def close(found, expected):
        torch.testing.assert_close(
            found, torch.tensor([expected], dtype=torch.float64), rtol=1e-12, atol=0
        )

    assert distribution(logits, 1.0, None, None).equal(plain)
    assert distribution(logits, 2.0, None, None).equal((logits.double() / 2).softmax(-1))
    assert distribution(logits, 0, 3, 0.5).tolist() == [[0, 1, 0, 0]]
    assert distribution(logits, 1.0, 1, None).tolist() == [[0, 1, 0, 0]]
    close(distribution(logits, 1.0, 2, None), [0, 0.5, 0, 0.5])
    close(distribution(logits, 1.0, 9, 1.0), plain[0].tolist())
    a, b = plain[0, [1, 2]].tolist()
    close(distribution(logits, 1.0, None, 0.5), [0, 0.5, 0, 0.5])  # a alone is less than half
    three = [0, a / (2 * a + b), b / (2 * a + b), a / (2 * a + b)]
    close(distribution(logits, 1.0, None, 2 * a + b / 2), three)
    close(distribution(logits, 1.0, 3, 0.9), three)
    assert distribution(logits, 5e-324, None, None).tolist() == [[0, 0.5, 0, 0.5]]


class Fixed:
    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def test_sample_draws_nothing_impossible():
    p = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]], dtype=torch.float64)
    assert sample(p, [Fixed(0.0)]) == [1]
    assert sample(p, [Fixed(1 - 2**-53)]) == [3]
    assert sample(p, [Fixed(0.29)]) == [1] and sample(p, [Fixed(0.31)]) == [3]
    assert sample(3 * p, [Fixed(0.31)]) == [3], "rows need not have a sum of 1"


@pytest.mark.parametrize("drafted", [False, True])
def test_seeds(drafted):
    """The same seed gives the same tokens, whatever else is in the batch."""
    model = make(max_seq_len=64)
    draft = make(5, dim=8, num_heads=1, max_seq_len=64) if drafted else None

    def generated(prompts, **options):
        return model.generate(prompts, 8, draft=draft, **options)

    prompts = [[1, 2, 3], [4], [5, 6]]
    both = generated(prompts, num_return_sequences=2, seed=3)
    assert both == generated(prompts, num_return_sequences=2, seed=3)
    assert both != generated(prompts, num_return_sequences=2, seed=4)
    assert len(set(map(tuple, both))) == 6
    assert generated(prompts[:1], seed=3) == both[:1]
    assert generated([prompts[0], [9] * 30], num_return_sequences=3, seed=3)[:2] == both[:2]
    torch.manual_seed(0)
    unseeded = generated(prompts)
    assert generated(prompts) != unseeded
    torch.manual_seed(0)
    assert generated(prompts) == unseeded
