import json
from dataclasses import replace

import pytest

from benchmarks.studies.attention.variants import parse
from benchmarks.studies.targets import run, table
from benchmarks.studies.targets.target import (
    COLUMN,
    MEMORY_EXPONENT,
    MEMORY_SAVING,
    SPEED,
    TIME_EXPONENT,
    Target,
)

from ..points import SMALL, row

RIVAL, SECOND = replace(SMALL, provider="sdpa"), replace(SMALL, provider="flex")
LONGER = tuple(replace(SMALL, seq_len=n) for n in (1024, 2048, 4096))


def measured(**times):
    points = {"ours": SMALL, "rival": RIVAL, "second": SECOND}
    return {points[name]: row(time_ms=t) for name, t in times.items()}


def test_speed_is_against_the_best_rival_that_ran():
    target = Target(SPEED, (SMALL,), (RIVAL, SECOND), at_least=1.5)
    assert target.values(measured(ours=2.0, rival=6.0, second=4.0)) == [2.0]
    rows = measured(ours=2.0, rival=6.0) | {SECOND: row(status="unsupported")}
    assert target.values(rows) == [3.0]
    assert target.holds(1.5) and not target.holds(1.49)


def test_what_was_not_measured_is_not_judged():
    target = Target(SPEED, (SMALL,), (RIVAL,))
    assert target.values({}) == []
    assert target.values(measured(ours=1.0)) == []
    assert target.values({RIVAL: row(), SMALL: row(status="oom")}) == []
    assert run._judge(target, {})["verdict"] == "not measured"


def test_exponents():
    time = Target(TIME_EXPONENT, LONGER, at_most=1.15)
    memory = Target(MEMORY_EXPONENT, LONGER, at_least=1.9, at_most=2.1)
    rows = {
        p: row(seq_len=p.seq_len, time_ms=p.seq_len**1.1, peak_memory_bytes=p.seq_len**2)
        for p in LONGER
    }
    assert time.values(rows) == [pytest.approx(1.1)]
    assert memory.values(rows) == [pytest.approx(2.0)]
    assert time.holds(1.1) and not time.holds(1.2)
    assert memory.holds(2.0) and not memory.holds(1.8) and not memory.holds(2.2)


def test_the_median_of_the_rounds_counts_and_a_broken_round_does_not():
    target = Target(SPEED, (SMALL,), (RIVAL,), at_least=1.0, rounds=4)
    rows = {}
    for number, speed in enumerate((0.5, 1.2, 1.1)):
        ours, rival = target.points(number)
        rows |= {ours: row(time_ms=1.0), rival: row(time_ms=speed)}
    ours, rival = target.points(3)
    rows |= {ours: row(status="timeout"), rival: row(time_ms=99.0)}
    judged = run._judge(target, rows)
    assert judged["rounds"] == [0.5, 1.2, 1.1]
    assert (judged["value"], judged["verdict"]) == (1.1, "holds")


def test_rounds_follow_each_other_and_share_no_measurement():
    plan = run._plan([Target(SPEED, (SMALL,), (RIVAL, SECOND), rounds=2)])
    assert [(p.provider, p.seed) for p in plan] == [
        *(("naive", 0), ("sdpa", 0), ("flex", 0)),
        *(("naive", 1), ("sdpa", 1), ("flex", 1)),
    ]


def test_memory_saving():
    target = Target(MEMORY_SAVING, (SMALL,), (RIVAL,), at_least=20)
    rows = {SMALL: row(peak_memory_bytes=10), RIVAL: row(peak_memory_bytes=250)}
    assert target.values(rows) == [25]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_target_can_be_measured(device):
    for target in run.TARGETS[device](seed=0):
        for point in target.points(0):
            assert point.device == device
            parse(point.variant)
            assert point.provider in ("naive", "sdpa", "flex", "fused", *PINNED)
        lengths = [point.seq_len for point in target.ours]
        assert len(lengths) == 1 or target.measure in COLUMN
        assert len({p.seq_len for p in target.points(0)}) == len(lengths)
        json.dumps(run._judge(target, {}), allow_nan=False)


PINNED = ("sdpa:flash", "sdpa:efficient", "sdpa:cudnn")


def test_the_targets_of_a_cpu_are_those_promised():
    found = {
        (b.measure, b.ours[0].provider, b.ours[0].variant, b.ours[0].mode, *rivals(b)): b
        for b in table.cpu_targets(0)
    }
    for mode in ("forward", "forward+backward"):
        for variant in ("full", "causal"):
            assert found[SPEED, "fused", variant, mode, "sdpa"].at_least == 1 / 1.1
            naive = found[SPEED, "fused", variant, mode, "naive"]
            assert naive.at_least == (2.5 if mode == "forward" else 2.0)
            assert naive.ours[0].seq_len == 4096
        window = found[SPEED, "fused", table.WINDOW, mode, "sdpa"]
        assert (window.at_least, window.ours[0].seq_len) == (8.0, 8192)
        assert found[TIME_EXPONENT, "fused", table.WINDOW, mode].at_most == 1.15
    for variant in ("softcap:30", "alibi", "document:4"):
        assert found[SPEED, "fused", variant, "forward+backward", "naive"].at_least == 1.5
    for variant in ("full", "causal", "softcap:30"):
        assert found[SPEED, "fused", variant, "forward", "flex"].at_least == 1.5
    window = found[SPEED, "fused", table.WINDOW, "forward", "flex"]
    assert (window.at_least, window.rounds) == (1.0, table.ROUNDS)
    naive = found[MEMORY_EXPONENT, "naive", "full", "forward+backward"]
    assert (naive.at_least, naive.at_most) == (1.9, 2.1)
    fused = found[MEMORY_EXPONENT, "fused", "full", "forward+backward"]
    assert fused.at_most == 1.1


def rivals(target):
    return [point.provider for point in target.rivals]


def test_what_compiles_for_long_is_measured_last():
    plan = run._plan(table.cuda_targets(0))
    assert len(plan) == len(set(plan))
    kinds = [point.provider == "flex" for point in plan]
    assert kinds == sorted(kinds)


def test_a_run_judges_writes_and_prints(session, monkeypatch):
    ours, rival = replace(SMALL, provider="fused"), replace(SMALL, provider="naive")
    easy = Target(SPEED, (ours,), (rival,), at_least=1e-6)
    hard = Target(SPEED, (ours,), (rival,), at_least=1e6, goal=2e6)
    monkeypatch.setitem(run.TARGETS, "cpu", lambda seed: [easy, hard])
    run.run("cpu", 0, session)
    judged = json.loads((session.folder / "targets.json").read_text())
    assert [line["verdict"] for line in judged] == ["holds", "MISSED"]
    assert judged[0]["value"] == judged[1]["value"] > 0
