import math

import numpy as np
import pytest

from benchmarks.present.fits import fit, tail

LENGTHS = (1024, 2048, 4096, 8192)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5, 2.0])
def test_an_exact_power_law_is_recovered(exponent):
    law = fit(LENGTHS, [3e-3 * n**exponent for n in LENGTHS])
    assert law.exponent == pytest.approx(exponent, abs=1e-9)
    assert law.ci_high - law.ci_low < 1e-6
    assert law.points == len(LENGTHS)


@pytest.mark.parametrize("count", [4, 8])
def test_the_interval_covers_the_truth_95_times_in_100(count):
    generator = np.random.default_rng(0)
    lengths = 256 * 2.0 ** np.arange(count)
    trials = 2000
    covered = 0
    for _ in range(trials):
        law = fit(lengths, lengths**1.7 * np.exp(generator.normal(0, 0.1, count)))
        covered += law.ci_low <= 1.7 <= law.ci_high
    three_sigma = 3 * math.sqrt(0.95 * 0.05 / trials)
    assert covered / trials == pytest.approx(0.95, abs=three_sigma)


def test_two_points_are_no_fit():
    assert fit((1, 2), (1, 2)) is None


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([256, 512, 1024, 2048, 4096, 8192], [1024, 2048, 4096, 8192]),
        ([8192, 256, 1024], [256, 1024, 8192]),
        ([64, 65536], [64, 65536]),
        ([], []),
    ],
)
def test_the_tail_spans_a_factor_of_eight_and_three_points(lengths, expected):
    assert tail(lengths) == expected
