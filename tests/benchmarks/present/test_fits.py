import math

import numpy as np
import pytest

from benchmarks.present.fits import fit, fit_rows, tail

from ..points import row

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


def test_every_curve_and_metric_is_fitted_over_its_own_tail():
    rows = [
        row("naive", seq_len=n, time_ms=n**2 + 1e6, peak_memory_bytes=5 * n**2)
        for n in (256, 512, 1024, 2048)
    ]
    rows += [row("naive", seq_len=4096, status="oom")]
    rows += [row("fused", seq_len=n, time_ms=n, peak_memory_bytes=7 * n) for n in LENGTHS]
    fitted = {(f["provider"], f["metric"]): f for f in fit_rows(rows)}
    assert set(fitted) == {(p, m) for p in ("naive", "fused") for m in ("time", "memory")}
    memory = fitted["naive", "memory"]
    assert memory["exponent"] == pytest.approx(2)
    assert (memory["points"], memory["tail_from"], memory["tail_to"]) == (4, 256, 2048)
    assert fitted["fused", "memory"]["exponent"] == pytest.approx(1)
    assert fitted["fused", "time"]["ci_low"] <= 1 <= fitted["fused", "time"]["ci_high"]


def test_a_short_curve_is_listed_without_an_exponent():
    (time, _) = fit_rows([row(seq_len=256), row(seq_len=512)])
    assert time["exponent"] is None
    assert time["points"] == 2


def test_a_measurement_of_nothing_is_not_fitted():
    rows = [row(seq_len=n, peak_memory_bytes=0 if n == 1024 else n) for n in LENGTHS]
    memory = next(f for f in fit_rows(rows) if f["metric"] == "memory")
    assert memory["points"] == 3


def test_a_curve_that_never_ran_is_not_listed():
    assert fit_rows([row(status="oom"), row(seq_len=512, status="unsupported")]) == []
