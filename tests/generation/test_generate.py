"""Generation on the paged cache: greedy tokens are those of full recomputation, sampled ones have
the model's distribution, with a draft model as without; pages come back, whatever happens."""

from collections import Counter
from random import Random

import pytest
import torch
from scipy.stats import chisquare

import fused_attention as fa
from fused_attention.generation.decoder import Decoder
from fused_attention.generation.request import Request
from fused_attention.generation.sampling import distribution, sample, verify
from fused_attention.models import GPT

from ..models.cases import config
from ..support import every_leg

SIGNIFICANCE = 1e-3  # of every statistical test; seeded, so it passes always or never


def make(seed=0, spread=0.3, **options) -> GPT:
    """A model whose next token is not always the last one again."""
    torch.manual_seed(seed)
    model = GPT(config(**options)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += spread * torch.randn(p.shape, generator=generator)
    return model


@torch.no_grad()
def recomputed(model, prompt, count, stop=()):
    """Greedy tokens by the textbook: every step computes everything again, naively."""
    before, model.attention = model.attention, "naive"
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(model(torch.tensor([tokens]))[0, -1].argmax().item())
        if tokens[-1] in stop:
            break
    model.attention = before
    return tokens[len(prompt) :]


def cache_of(model, num_blocks, max_seqs, page_size=16, **options):
    c = model.config
    return fa.PagedKVCache(
        *(c.num_layers, c.num_kv_heads, c.head_dim),
        num_blocks=num_blocks,
        page_size=page_size,
        dtype=torch.float32,
        window=c.window,
        max_seqs=max_seqs,
        max_seq_len=100,
        **options,
    )


def a_request(rng):
    """A random model, its draft, prompts, and what is asked."""
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
    """200 random configurations, in a cache with no page more than is asked for."""
    said = set()
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
        said.update(*found)
    assert len(said) > 25, "tokens that hardly differ prove little"


@every_leg
def test_greedy_on_every_leg(device):
    model = make(position="rotary", num_kv_heads=2, num_layers=1).to(device)
    prompts = [[3, 1, 4, 1, 5], [9]]
    found = model.generate(prompts, 3, temperature=0, draft=model, num_draft_tokens=1)
    assert found == [recomputed(model.cpu(), prompt, 3) for prompt in prompts]


def test_a_good_draft_saves_steps(monkeypatch):
    """12 tokens after the first, 4 a step: 3 that were guessed and the one after them."""
    steps = []
    predict_all = Decoder.predict_all

    def counted(self, sequences, drafts):
        steps.append([len(draft) for draft in drafts])
        return predict_all(self, sequences, drafts)

    monkeypatch.setattr(Decoder, "predict_all", counted)
    model = make(max_seq_len=64)
    model.generate([[1, 2, 3]], 13, temperature=0, draft=model, num_draft_tokens=3)
    assert steps == [[3], [3], [3]]
    steps.clear()
    model.generate([[1, 2, 3]], 3, temperature=0, draft=model, num_draft_tokens=3)
    assert steps == [[1]], "no guess is worth making that could not be used"


@pytest.mark.parametrize("window", [0, 3])
def test_a_draft_goes_back_behind_its_window(window):
    """Its pages of 64 leave the window while it guesses, and are missed when it was wrong."""
    model = make(max_seq_len=150, num_layers=1)
    draft = make(3, max_seq_len=150, num_layers=1, window=window)
    prompts = [[i % 50 for i in range(length)] for length in range(56, 66)]
    found = model.generate(prompts, 12, temperature=0, draft=draft, num_draft_tokens=6)
    assert found == [recomputed(model, prompt, 12) for prompt in prompts]


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


def check_counts(drawn, expected):
    """A chi-square test; outcomes too rare for it are one outcome."""
    counts, total = Counter(drawn), len(drawn)
    assert set(counts) <= set(expected), "something impossible was drawn"
    common = [key for key, p in expected.items() if p * total >= 10]
    observed = [counts[key] for key in common]
    wanted = [expected[key] * total for key in common]
    rest = total - sum(wanted)
    if rest > 5:
        observed, wanted = [*observed, total - sum(observed)], [*wanted, rest]
    else:
        wanted = [w * sum(observed) / sum(wanted) for w in wanted]
    assert len(wanted) > 1
    assert chisquare(observed, wanted).pvalue > SIGNIFICANCE


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
def test_what_is_sampled_is_the_distribution(drafted, sampling):
    """Three tokens of four, 3,000 times, against the probability of each of the 64 outcomes."""
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
    if draft is not None:  # the test can tell them apart
        with pytest.raises(AssertionError):
            check_counts(drawn, exact_distribution(draft, prompt, 3, **sampling))


@pytest.mark.parametrize("drafts", [0, 1, 2])
def test_verify_keeps_the_distribution_of_the_target(drafts):
    """Whatever was guessed, the first token is distributed as p."""
    generator = torch.Generator().manual_seed(drafts)
    p = torch.rand(3, 4, generator=generator, dtype=torch.float64).pow(2)
    q = torch.rand(2, 4, generator=generator, dtype=torch.float64).pow(2)
    p[0, 1] = q[0, 2] = 0
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    rng, first, kept = Random(0), [], []
    for _ in range(4000):
        guesses = [sample(q[i : i + 1], [rng])[0] for i in range(drafts)]
        count, row = verify(guesses, q[:drafts], p[: drafts + 1], rng)
        first.append([*guesses[:count], *sample(row[None], [rng])][0])
        kept.append(count)
    check_counts(first, {t: x for t, x in enumerate(p[0].tolist()) if x})
    if drafts:  # Leviathan et al. 2023, theorem 3.5: the overlap of p and q
        overlap = torch.minimum(p[0], q[0]).sum().item()
        check_counts([count > 0 for count in kept], {True: overlap, False: 1 - overlap})


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
    close(distribution(logits, 1.0, None, 0.5), [0, 0.5, 0, 0.5])  # a is less than half
    three = [0, a / (2 * a + b), b / (2 * a + b), a / (2 * a + b)]
    close(distribution(logits, 1.0, None, 2 * a + b / 2), three)
    close(distribution(logits, 1.0, 3, 0.9), three)
    with pytest.raises(ValueError, match="logits: expected numbers"):
        distribution(torch.tensor([[0.0, torch.nan]]), 0, None, None)


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


def test_tokens_are_streamed_and_stop_tokens_end_a_sequence():
    model = make(max_seq_len=64)
    prompts = [[1, 2, 3], [4]]
    whole = [recomputed(model, prompt, 10) for prompt in prompts]
    stop = whole[0][1]
    heard = []
    cache = cache_of(model, 4, 2)
    held = []

    def listen(index, token):
        heard.append((index, token))
        held.append(cache.pool.num_blocks - cache.pool.num_free)

    found = model.generate(prompts, 10, temperature=0, stop=stop, on_token=listen, cache=cache)
    assert found == [tokens[: [*tokens, stop].index(stop) + 1] for tokens in whole]
    assert len(found[0]) == 2 and len(found[1]) > len(found[0])
    for i, tokens in enumerate(found):
        assert [token for index, token in heard if index == i] == tokens
    assert heard[0][0] == 0 and heard[1][0] == 1, "side by side, not one after the other"
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
def test_seeds(drafted):
    """The same seed, the same tokens; those of a sequence do not depend on the others."""
    model = make(max_seq_len=64)
    draft = make(5, dim=8, num_heads=1, max_seq_len=64) if drafted else None

    def say(prompts, **options):
        return model.generate(prompts, 8, draft=draft, **options)

    prompts = [[1, 2, 3], [4], [5, 6]]
    both = say(prompts, num_return_sequences=2, seed=3)
    assert both == say(prompts, num_return_sequences=2, seed=3)
    assert both != say(prompts, num_return_sequences=2, seed=4)
    assert len(set(map(tuple, both))) == 6
    assert say(prompts[:1], seed=3) == both[:1]
    assert say([prompts[0], [9] * 30], num_return_sequences=3, seed=3)[:2] == both[:2]
    torch.manual_seed(0)
    free = say(prompts)
    assert say(prompts) != free
    torch.manual_seed(0)
    assert say(prompts) == free


def test_dropout_is_off_meanwhile():
    model = make(dropout=0.5, attention_dropout=0.5).train()
    model.stack.blocks[0].eval()
    found = model.generate([[1, 2, 3]], 8, temperature=0)
    assert model.training and not model.stack.blocks[0].training and model.stack.training
    assert found == [recomputed(model.eval(), [1, 2, 3], 8)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """Weights in 16 bits, and autocast: the cache has the dtype of keys and values."""
    model, prompts = make(position="rotary"), [[1, 2, 3], [4]]
    with torch.autocast("cpu", dtype):
        found = model.generate(prompts, 5, temperature=0)
    assert list(map(len, found)) == [5, 5]
    assert list(map(len, model.to(dtype).generate(prompts, 5, temperature=0))) == [5, 5]


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


def test_nan_is_not_sampled():
    model = make()
    torch.nn.init.constant_(model.embedding.weight, torch.nan)
    for temperature in (0, 1):
        with pytest.raises(ValueError, match="logits: expected numbers, the model computed NaN"):
            model.generate([[1]], 2, temperature=temperature)


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


def test_attention_that_has_no_cache():
    with pytest.raises(NotImplementedError, match="model: a paged cache needs attention 'fused'"):
        GPT(config(), attention="sdpa").generate([[1]], 2)
