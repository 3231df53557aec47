"""A statistical test of samples against their distribution."""

from collections import Counter

from scipy.stats import chisquare

SIGNIFICANCE = 1e-3  # samples are seeded, so a test passes always or never


def check_counts(drawn, expected):
    """A chi-square test of outcomes against probabilities; rare outcomes are pooled."""
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
