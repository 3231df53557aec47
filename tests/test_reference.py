"""The reference implementation, which defines what is correct, against independent sources."""

import math

import pytest
import torch

import fused_attention as fa
from fused_attention import philox

from .helpers import inputs, stacks
from .helpers.stacks import Sizes


def test_three_token_example():
    """ "Buy milk and", causal: the worked example of an introduction to attention.

    The published rows were computed by hand from rounded weights, so their fourth decimal is off
    (1.5702 should be 1.5704, 0.3149 should be 0.3148).  They are compared to half a unit of the
    third decimal; the formula, in plain Python, is compared to every digit.
    """
    x = torch.tensor([[0.1, 1.0], [1.1, 0.0], [0.5, 0.7]], dtype=torch.float64)
    w_q = w_k = torch.eye(2, dtype=torch.float64)
    w_v = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    q, k, v = ((x @ w)[None, None] for w in (w_q, w_k, w_v))
    out, _, weights = fa.reference.attention(
        q, k, v, fa.causal(), scale=1 / math.sqrt(2), return_weights=True
    )
    published = torch.tensor([[0.2, 1.0], [1.5702, 0.3149], [1.0844, 0.5926]], dtype=torch.float64)
    torch.testing.assert_close(out[0, 0], published, rtol=0, atol=5e-4)

    rows = x.tolist()
    for i, row in enumerate(rows):
        scores = [sum(a * b for a, b in zip(row, other, strict=True)) for other in rows[: i + 1]]
        exps = [math.exp(s / math.sqrt(2)) for s in scores]
        first = sum(e * 2 * other[0] for e, other in zip(exps, rows, strict=False)) / sum(exps)
        second = sum(e * other[1] for e, other in zip(exps, rows, strict=False)) / sum(exps)
        expected = torch.tensor([first, second], dtype=torch.float64)
        torch.testing.assert_close(out[0, 0, i], expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 1, 3, dtype=torch.float64))


# Each variant in plain Python: (score, b, h, i, j, rows, keys, tensor) -> (score, visible).
# i and j count the rows of q and of k from 0; "position" is the index of row i among the keys.
def _position(i, rows, keys):
    return i + keys - rows


def _run_of(ids, b, j):
    """The first index of the run of equal ids that contains j."""
    while j > 0 and ids[b][j - 1] == ids[b][j]:
        j -= 1
    return j


RULES = {
    "causal": lambda s, b, h, i, j, m, n, t: (s, j <= _position(i, m, n)),
    "top_left": lambda s, b, h, i, j, m, n, t: (s, j <= i),
    "window": lambda s, b, h, i, j, m, n, t: (s, 0 <= _position(i, m, n) - j <= 20),
    "window_both": lambda s, b, h, i, j, m, n, t: (s, -40 <= _position(i, m, n) - j <= 9),
    "softcap": lambda s, b, h, i, j, m, n, t: (1.5 * math.tanh(s / 1.5), True),
    "alibi": lambda s, b, h, i, j, m, n, t: (s - t[h] * abs(_position(i, m, n) - j), True),
    "alibi_batch": lambda s, b, h, i, j, m, n, t: (s - t[b][h] * abs(i + n - m - j), True),
    "key_padding": lambda s, b, h, i, j, m, n, t: (s, j < t[b]),
    "document": lambda s, b, h, i, j, m, n, t: (
        s,
        _run_of(t, b, _position(i, m, n)) == _run_of(t, b, j),
    ),
    "mask": lambda s, b, h, i, j, m, n, t: (s, t[b][0][i][j]),
    "bias": lambda s, b, h, i, j, m, n, t: (s + t[b][h][i][j], True),
    "past_bias": lambda s, b, h, i, j, m, n, t: (
        s + t[h][min(max(_position(i, m, n) - j, 0), 14)],
        True,
    ),
    "bias_keys": lambda s, b, h, i, j, m, n, t: (s + t[b][0][0][j], True),
    "stripes": lambda s, b, h, i, j, m, n, t: (s, (_position(i, m, n) + j + h) % 3 != 0),
    "prefix": lambda s, b, h, i, j, m, n, t: (s, j < 10 or j <= _position(i, m, n)),
    "bend": lambda s, b, h, i, j, m, n, t: (s - 0.125 * s**2, True),
    "sink": lambda s, b, h, i, j, m, n, t: (s + 0.5 * t[0][h][0][j] ** 2, True),
}


def brute_force(case: inputs.Inputs, scale: float):
    """Output, LSE and weights by loops over every row and key."""
    batch, heads, rows, _ = case.q.shape
    keys, group = case.k.shape[2], heads // case.k.shape[1]
    rules = [RULES[name] for name in stacks.names(case.stack)]
    tensors = [None if x is None else x.tolist() for x in case.tensors]
    weights = torch.zeros(batch, heads, rows, keys, dtype=torch.float64)
    out = torch.zeros(batch, heads, rows, case.v.shape[3], dtype=torch.float64)
    lse = torch.full((batch, heads, rows), -math.inf, dtype=torch.float64)
    for b, h, i in ((b, h, i) for b in range(batch) for h in range(heads) for i in range(rows)):
        seen = {}
        for j in range(keys):
            s, visible = scale * float(case.q[b, h, i] @ case.k[b, h // group, j]), True
            for rule, tensor in zip(rules, tensors, strict=True):
                s, allowed = rule(s, b, h, i, j, rows, keys, tensor)
                visible = visible and allowed
            if visible:
                seen[j] = s
        if seen:
            total = math.fsum(math.exp(s) for s in seen.values())
            lse[b, h, i] = math.log(total)
            for j, s in seen.items():
                weights[b, h, i, j] = math.exp(s) / total
                out[b, h, i] += weights[b, h, i, j] * case.v[b, h // group, j]
    return out, lse, weights


@pytest.mark.parametrize("rows, keys", [(7, 12), (12, 12), (12, 7)])
@pytest.mark.parametrize("stack", [*RULES, "", "softcap+alibi+causal", "bend+bias+key_padding"])
def test_twins_against_loops(stack, rows, keys):
    if rows > keys and "document" in stack:
        pytest.skip("documents have no more queries than keys")
    shape = Sizes(2, 4, 2, rows, keys, 3, 5)
    case = inputs.make(shape, torch.float64, stack=stack, seed=rows).double()
    if stack == "document":
        case.tensors[0].copy_(torch.arange(keys).expand(2, keys) // 3 % 2)  # ids recur
    variants = stacks.build(stack, case.tensors)
    found = fa.reference.attention(case.q, case.k, case.v, variants, return_weights=True)
    expected = brute_force(case, 1 / math.sqrt(3))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13)
    sums = found.weights.sum(-1)
    torch.testing.assert_close(sums, (expected[1] != -math.inf).double())


def test_fully_masked_rows():
    q, k, v = (torch.randn(1, 1, 3, 4, requires_grad=True) for _ in range(3))
    variants = fa.mask(torch.tensor([[True, True, False], [False] * 3, [True] * 3]))
    out, lse, weights = fa.reference.attention(q, k, v, variants, return_weights=True)
    assert not out[0, 0, 1].any() and lse[0, 0, 1] == -math.inf and not weights[0, 0, 1].any()
    (out.sum() + lse[0, 0, [0, 2]].sum()).backward()
    assert not q.grad[0, 0, 1].any()
    assert all(x.grad.isfinite().all() and x.grad.any() for x in (q, k, v))


@pytest.mark.parametrize(
    "counter, key, expected",
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers(counter, key, expected):
    """The Philox4x32-10 test vectors of Random123, the library of its authors."""
    seed = key[0] | key[1] << 32
    seed = torch.tensor([seed - (1 << 64 if seed >= 1 << 63 else 0)])
    words = philox.philox(seed, *(torch.tensor([c]) for c in counter))
    assert " ".join(f"{word.item():08x}" for word in words) == expected


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_statistics(p):
    """The drop rate, and independence of neighbors, heads and sequences, within 5 deviations."""
    index = [
        torch.arange(n).view([-1 if d == i else 1 for d in range(4)])
        for i, n in enumerate((3, 4, 96, 96))
    ]
    kept = philox.keep(torch.tensor([1234567890123]), *index, p).double()
    deviation = math.sqrt(p * (1 - p))
    assert abs(kept.mean().item() - (1 - p)) < 5 * deviation / math.sqrt(kept.numel())
    centered = (kept - (1 - p)) / deviation
    for d in range(4):
        for shift in (1, 2):
            product = centered.narrow(d, shift, kept.shape[d] - shift) * centered.narrow(
                d, 0, kept.shape[d] - shift
            )
            assert abs(product.mean().item()) < 5 / math.sqrt(product.numel()), (d, shift)


def test_dropout_at_the_ends():
    """p = 0 keeps all weights and draws no seed; p = 1 drops all; scaling preserves the mean."""
    q, k, v = (torch.randn(2, 3, 50, 8) for _ in range(3))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    plain = fa.reference.attention(q, k, v, dropout_p=0.0).out
    assert torch.equal(torch.get_rng_state(), before)
    assert not fa.reference.attention(q, k, v, dropout_p=1.0).out.any()
    weights = [
        fa.reference.attention(q, k, v, dropout_p=p, return_weights=True).weights
        for p in (0.0, 0.25)
    ]
    torch.testing.assert_close(
        weights[1], torch.where(weights[1] > 0, weights[0] / 0.75, 0), rtol=1e-6, atol=0
    )
    several = torch.stack([fa.reference.attention(q, k, v, dropout_p=0.5).out for _ in range(400)])
    error = (several.mean(0) - plain) / (several.std(0) / math.sqrt(400))
    assert error.abs().max() < 5.5
