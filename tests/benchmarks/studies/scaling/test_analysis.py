import pandas as pd
import pytest

from benchmarks.studies.scaling import analysis

from ...points import row


def line(frame, **wanted):
    for name, value in wanted.items():
        frame = frame[frame[name] == value]
    (found,) = frame.itertuples()
    return found


def test_speed_up_and_saving_are_over_naive_at_the_same_length():
    frame = analysis.summarize(
        [
            row("naive", time_ms=30.0, peak_memory_bytes=600),
            row("naive", seq_len=512, time_ms=99.0),
            row("naive", "causal", time_ms=20.0, peak_memory_bytes=500),
            row("fused", time_ms=10.0, peak_memory_bytes=100),
            row("fused", "causal", time_ms=4.0, peak_memory_bytes=100),
            row("fused", "sliding_window:8", time_ms=2.0, peak_memory_bytes=100),
            row("fused", mode="backward"),
        ]
    )
    full = line(frame, provider="fused", variant="full", mode="forward")
    assert (full.speedup_over_naive, full.memory_saving_over_naive) == (3.0, 6.0)
    assert line(frame, variant="causal", provider="fused").speedup_over_naive == 5.0
    window = line(frame, variant="sliding_window:8")
    assert (window.speedup_over_naive, window.naive_variant) == (15.0, "full")
    assert pd.isna(line(frame, mode="backward").speedup_over_naive)


def test_nothing_is_compared_with_a_failure():
    frame = analysis.summarize([row("naive", status="oom"), row("fused")])
    assert frame.speedup_over_naive.isna().all()
    frame = analysis.summarize([row("naive"), row("fused", status="oom")])
    assert pd.isna(line(frame, provider="fused").speedup_over_naive)


def test_the_frontier_is_the_last_that_ran_and_the_first_that_did_not():
    rows = [row("naive", seq_len=n) for n in (256, 512)]
    rows += [row("naive", seq_len=2048, status="timeout"), row("naive", seq_len=1024, status="oom")]
    rows += [row("fused", seq_len=1024), row("flex", status="unsupported", reason="no")]
    found = analysis.frontier(analysis.summarize(rows)).set_index("provider")
    assert found.loc["naive"].tolist()[2:] == [512, 1024, "oom"]
    assert found.loc["fused", "longest_ok"] == 1024
    assert pd.isna(found.loc["fused", "first_failed"])
    assert pd.isna(found.loc["flex", "longest_ok"])
    assert pd.isna(found.loc["flex", "first_failed"])


@pytest.mark.parametrize(
    ("provider", "variant", "label"),
    [("fused", "full", "fused"), ("sdpa:math", "causal", "sdpa:math causal")],
)
def test_labels(provider, variant, label):
    assert analysis.curve_label(provider, variant) == label


def test_headlines_are_at_the_longest_length_that_naive_reached():
    rows = [row("naive", seq_len=n, time_ms=8.0, peak_memory_bytes=400) for n in (256, 512)]
    rows += [row("naive", seq_len=1024, status="oom")]
    rows += [row("fused", seq_len=n, time_ms=2.0, peak_memory_bytes=100) for n in (256, 512, 1024)]
    assert analysis.headlines(analysis.summarize(rows)) == [
        "At n = 512, forward, fused has 4 times the speed and 1/4 of the memory of naive attention."
    ]


LENGTHS = (1024, 2048, 4096, 8192)


def test_every_curve_and_metric_is_fitted_over_its_own_tail():
    rows = [
        row("naive", seq_len=n, time_ms=n**2 + 1e6, peak_memory_bytes=5 * n**2)
        for n in (256, 512, 1024, 2048)
    ]
    rows += [row("naive", seq_len=4096, status="oom")]
    rows += [row("fused", seq_len=n, time_ms=n, peak_memory_bytes=7 * n) for n in LENGTHS]
    fitted = {(f["provider"], f["metric"]): f for f in analysis.fit_curves(rows)}
    assert set(fitted) == {(p, m) for p in ("naive", "fused") for m in ("time", "memory")}
    memory = fitted["naive", "memory"]
    assert memory["exponent"] == pytest.approx(2)
    assert (memory["points"], memory["tail_from"], memory["tail_to"]) == (4, 256, 2048)
    assert fitted["fused", "memory"]["exponent"] == pytest.approx(1)
    assert fitted["fused", "time"]["ci_low"] <= 1 <= fitted["fused", "time"]["ci_high"]


def test_a_short_curve_is_listed_without_an_exponent():
    (time, _) = analysis.fit_curves([row(seq_len=256), row(seq_len=512)])
    assert time["exponent"] is None
    assert time["points"] == 2


def test_a_measurement_of_nothing_is_not_fitted():
    rows = [row(seq_len=n, peak_memory_bytes=0 if n == 1024 else n) for n in LENGTHS]
    memory = next(f for f in analysis.fit_curves(rows) if f["metric"] == "memory")
    assert memory["points"] == 3


def test_a_curve_that_never_ran_is_not_listed():
    assert analysis.fit_curves([row(status="oom"), row(seq_len=512, status="unsupported")]) == []
