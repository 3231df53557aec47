import json
from dataclasses import replace

import pytest

from benchmarks.studies.attention.variants import parse
from benchmarks.studies.targets import run as bars
from benchmarks.studies.targets.run import Bar

from ..points import SMALL, row

RIVAL, SECOND = replace(SMALL, provider="sdpa"), replace(SMALL, provider="flex")
LONGER = tuple(replace(SMALL, seq_len=n) for n in (1024, 2048, 4096))


def measured(**times):
    points = {"ours": SMALL, "rival": RIVAL, "second": SECOND}
    return {points[name]: row(time_ms=t) for name, t in times.items()}


def test_speed_is_against_the_best_rival_that_ran():
    bar = Bar(bars.SPEED, (SMALL,), (RIVAL, SECOND), at_least=1.5)
    assert bar.values(measured(ours=2.0, rival=6.0, second=4.0)) == [2.0]
    rows = measured(ours=2.0, rival=6.0) | {SECOND: row(status="unsupported")}
    assert bar.values(rows) == [3.0]
    assert bar.holds(1.5) and not bar.holds(1.49)


def test_what_was_not_measured_is_not_judged():
    bar = Bar(bars.SPEED, (SMALL,), (RIVAL,))
    assert bar.values({}) == []
    assert bar.values(measured(ours=1.0)) == []
    assert bar.values({RIVAL: row(), SMALL: row(status="oom")}) == []
    assert bars._judge(bar, {})["verdict"] == "not measured"


def test_exponents():
    time = Bar(bars.TIME_EXPONENT, LONGER, at_most=1.15)
    memory = Bar(bars.MEMORY_EXPONENT, LONGER, at_least=1.9, at_most=2.1)
    rows = {
        p: row(seq_len=p.seq_len, time_ms=p.seq_len**1.1, peak_memory_bytes=p.seq_len**2)
        for p in LONGER
    }
    assert time.values(rows) == [pytest.approx(1.1)]
    assert memory.values(rows) == [pytest.approx(2.0)]
    assert time.holds(1.1) and not time.holds(1.2)
    assert memory.holds(2.0) and not memory.holds(1.8) and not memory.holds(2.2)


def test_the_median_of_the_rounds_counts_and_a_broken_round_does_not():
    bar = Bar(bars.SPEED, (SMALL,), (RIVAL,), at_least=1.0, rounds=4)
    rows = {}
    for number, speed in enumerate((0.5, 1.2, 1.1)):
        ours, rival = bar.points(number)
        rows |= {ours: row(time_ms=1.0), rival: row(time_ms=speed)}
    ours, rival = bar.points(3)
    rows |= {ours: row(status="timeout"), rival: row(time_ms=99.0)}
    judged = bars._judge(bar, rows)
    assert judged["rounds"] == [0.5, 1.2, 1.1]
    assert (judged["value"], judged["verdict"]) == (1.1, "holds")


def test_rounds_follow_each_other_and_share_no_measurement():
    plan = bars._plan([Bar(bars.SPEED, (SMALL,), (RIVAL, SECOND), rounds=2)])
    assert [(p.provider, p.seed) for p in plan] == [
        *(("naive", 0), ("sdpa", 0), ("flex", 0)),
        *(("naive", 1), ("sdpa", 1), ("flex", 1)),
    ]


def test_memory_saving():
    bar = Bar(bars.MEMORY_SAVING, (SMALL,), (RIVAL,), at_least=20)
    rows = {SMALL: row(peak_memory_bytes=10), RIVAL: row(peak_memory_bytes=250)}
    assert bar.values(rows) == [25]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_bar_can_be_measured(device):
    for bar in bars.BARS[device](seed=0):
        for point in bar.points(0):
            assert point.device == device
            parse(point.variant)
            assert point.provider in ("naive", "sdpa", "flex", "fused", *PINNED)
        lengths = [point.seq_len for point in bar.ours]
        assert len(lengths) == 1 or bar.measure in bars.COLUMN
        assert len({p.seq_len for p in bar.points(0)}) == len(lengths)
        json.dumps(bars._judge(bar, {}), allow_nan=False)


PINNED = ("sdpa:flash", "sdpa:efficient", "sdpa:cudnn")


def test_the_bars_of_a_cpu_are_those_promised():
    found = {
        (b.measure, b.ours[0].provider, b.ours[0].variant, b.ours[0].mode, *rivals(b)): b
        for b in bars.cpu_bars(0)
    }
    for mode in ("forward", "forward+backward"):
        for variant in ("full", "causal"):
            assert found[bars.SPEED, "fused", variant, mode, "sdpa"].at_least == 1 / 1.1
            naive = found[bars.SPEED, "fused", variant, mode, "naive"]
            assert naive.at_least == (2.5 if mode == "forward" else 2.0)
            assert naive.ours[0].seq_len == 4096
        window = found[bars.SPEED, "fused", bars.WINDOW, mode, "sdpa"]
        assert (window.at_least, window.ours[0].seq_len) == (8.0, 8192)
        assert found[bars.TIME_EXPONENT, "fused", bars.WINDOW, mode].at_most == 1.15
    for variant in ("softcap:30", "alibi", "document:4"):
        assert found[bars.SPEED, "fused", variant, "forward+backward", "naive"].at_least == 1.5
    for variant in ("full", "causal", "softcap:30"):
        assert found[bars.SPEED, "fused", variant, "forward", "flex"].at_least == 1.5
    window = found[bars.SPEED, "fused", bars.WINDOW, "forward", "flex"]
    assert (window.at_least, window.rounds) == (1.0, bars.ROUNDS)
    naive = found[bars.MEMORY_EXPONENT, "naive", "full", "forward+backward"]
    assert (naive.at_least, naive.at_most) == (1.9, 2.1)
    fused = found[bars.MEMORY_EXPONENT, "fused", "full", "forward+backward"]
    assert fused.at_most == 1.1


def rivals(bar):
    return [point.provider for point in bar.rivals]


def test_what_compiles_for_long_is_measured_last():
    plan = bars._plan(bars.cuda_bars(0))
    assert len(plan) == len(set(plan))
    kinds = [point.provider == "flex" for point in plan]
    assert kinds == sorted(kinds)


def test_a_run_judges_writes_and_prints(session, monkeypatch):
    ours, rival = replace(SMALL, provider="fused"), replace(SMALL, provider="naive")
    easy = Bar(bars.SPEED, (ours,), (rival,), at_least=1e-6)
    hard = Bar(bars.SPEED, (ours,), (rival,), at_least=1e6, goal=2e6)
    monkeypatch.setitem(bars.BARS, "cpu", lambda seed: [easy, hard])
    bars.run("cpu", 0, session)
    judged = json.loads((session.folder / "bars.json").read_text())
    assert [line["verdict"] for line in judged] == ["holds", "MISSED"]
    assert judged[0]["value"] == judged[1]["value"] > 0
