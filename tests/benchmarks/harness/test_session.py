"""A run stores every outcome, resumes where it was cut off and never mixes what differs."""

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from benchmarks.harness import runner
from benchmarks.harness import session as sessions
from benchmarks.harness.store import NAME

from ..points import SMALL, fake

POINTS = [replace(SMALL, provider=p, seq_len=n) for n in (16, 32, 64) for p in ("naive", "fused")]


class Killed(BaseException):
    """Stands for whatever ends a run, such as Ctrl-C."""


def stored(session):
    path = session.folder / NAME
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_after(monkeypatch, count):
    """Cuts the run off in the middle of the measurement after `count` of them."""
    real, calls = runner.isolate.run, []

    def run(target, payload, timeout, method):
        if target == "studies.attention.worker.measure":
            calls.append(payload)
            if len(calls) > count:
                raise Killed
        return real(target, payload, timeout, method)

    monkeypatch.setattr(runner.isolate, "run", run)
    return calls


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_killed_run_resumes_without_repeating_or_losing_a_point(session, monkeypatch, count):
    with monkeypatch.context() as patch:
        kill_after(patch, count)
        with pytest.raises(Killed):
            session.run(POINTS)
    assert len(stored(session)) == count
    assert json.loads((session.folder / "provenance.json").read_text())["started"]
    with monkeypatch.context() as patch:
        calls = kill_after(patch, 99)
        rows, origin = session.run(POINTS)
    assert len(calls) == len(POINTS) - count
    keys = [row["key"] for row in stored(session)]
    assert len(keys) == len(set(keys)) == len(rows) == len(POINTS)
    assert all(row["status"] == "ok" for row in rows)
    assert len(origin["earlier_runs"]) == 1


def test_a_finished_run_measures_nothing_again_and_keeps_its_provenance(session):
    session.run(POINTS[:1])
    before = (session.folder / NAME).read_bytes()
    provenance = (session.folder / "provenance.json").read_bytes()
    rows, _ = session.run(POINTS[:1])
    assert len(rows) == 1
    assert (session.folder / NAME).read_bytes() == before
    assert (session.folder / "provenance.json").read_bytes() == provenance


def test_failures_are_rows_and_the_run_goes_on(session):
    names = ("raises", "exits", "refuses", "runs_out", "sleeps", "quick")
    rows, _ = replace(session, timeout=2.0).run([fake(name) for name in names])
    found = {row["provider"].rpartition(":")[2]: row for row in rows}
    assert {name: row["status"] for name, row in found.items()} == {
        "raises": "error",
        "exits": "error",
        "refuses": "unsupported",
        "runs_out": "oom",
        "sleeps": "timeout",
        "quick": "ok",
    }
    for row in rows:
        assert (row["time_ms"] is None) == (row["status"] != "ok")
        assert row["wall_s"] > 0


def test_results_of_other_shapes_and_other_code_stay_out(session):
    session.run([SMALL])
    other = replace(SMALL, heads=4)
    rows, _ = session.run([other])
    assert [row["heads"] for row in rows] == [4]
    newer = replace(session.machine, fingerprint={**session.machine.fingerprint, "code": "x"})
    rows, _ = replace(session, machine=newer).run([SMALL])
    assert len(rows) == 1
    assert len(stored(session)) == 3


def test_more_of_the_same_is_added_to_what_is_there(session):
    session.run(POINTS[:2])
    rows, _ = session.run(POINTS[2:4])
    assert sorted(row["seq_len"] for row in rows) == [16, 16, 32, 32]


def test_a_row_says_all_there_is_to_say(session):
    ((row,), _) = session.run([SMALL])
    assert row["status"] == "ok"
    assert row["time_ms_p20"] <= row["time_ms"] <= row["time_ms_p80"]
    assert row["peak_memory_bytes"] >= 0
    assert row["max_error_ratio"] == pytest.approx(1.0)
    flops = 4 * 2 * 64 * 64 * 16
    assert row["tflops"] == pytest.approx(flops / (row["time_ms"] * 1e9))
    shape = ("batch", "heads", "kv_heads", "head_dim", "dtype", "device", "seed", "cache")
    assert {name: row[name] for name in shape} == {name: getattr(SMALL, name) for name in shape}
    for name in ("repeats", "memory_method", "threads", "device_name", "timeout_s", "finished"):
        assert row[name], name


def test_a_result_that_is_not_finite_is_said_to_be(session):
    ((row,), _) = session.run([fake("is_not_a_number")])
    assert row["max_error_ratio"] is None
    assert row["reason"] == "the result is not finite"


def test_fresh_starts_over(session):
    session.run([SMALL])
    rows, origin = replace(session, fresh=True).run([SMALL])
    assert len(stored(session)) == len(rows) == 1
    assert (session.folder / f"{NAME}.old-1").exists()
    assert "earlier_runs" not in origin


def test_a_budget_stops_between_points(session):
    rows, _ = replace(session, budget_s=-1.0).run(POINTS)
    assert rows == []
    rows, _ = replace(session, budget_s=math.inf).run(POINTS[:1])
    assert len(rows) == 1


def test_curves_are_interleaved_reproducibly_and_short_lengths_come_first():
    points = [
        replace(SMALL, provider=p, seq_len=n)
        for p in ("naive", "sdpa", "fused", "flex")
        for n in (512, 128, 256)
    ]
    order = runner.interleaved(points, seed=3)
    assert order == runner.interleaved(points, seed=3)
    assert order != runner.interleaved(points, seed=4)
    assert sorted(map(str, order)) == sorted(map(str, points))
    assert [p.seq_len for p in order] == [128] * 4 + [256] * 4 + [512] * 4
    by_length = [[p.provider for p in order[i : i + 4]] for i in (0, 4, 8)]
    assert by_length[0] != by_length[1] or by_length[1] != by_length[2]


@pytest.mark.parametrize(
    ("before", "after", "steady"),
    [
        ({"copy": 10.0}, {"copy": 11.0}, True),
        ({"copy": 10.0, "matmul": 1.0}, {"copy": 10.0, "matmul": 0.5}, False),
        ({"failed": "timeout"}, {"copy": 1.0}, None),
    ],
)
def test_a_machine_that_changes_speed_is_noticed(before, after, steady):
    assert sessions._steady(before, after) is steady


@pytest.mark.parametrize(
    ("busy", "steady", "warning"),
    [(90.0, True, "90 % busy"), (1.0, False, "speed changed"), (1.0, True, ""), (1.0, None, "")],
)
def test_a_disturbed_run_says_so(busy, steady, warning):
    out = Console(record=True, file=io.StringIO())
    sessions.warn_if_disturbed({"cpu": {"busy_percent": busy}, "steady": steady}, out)
    text = out.export_text()
    assert warning in text
    assert bool(warning) == bool(text)


def test_json_is_replaced_at_once_and_never_holds_nan(tmp_path):
    path = tmp_path / "x.json"
    sessions.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        sessions.write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": 1}


def test_where_forking_breaks_the_device_children_are_spawned(monkeypatch):
    tried = []

    def run(target, payload, timeout, method):
        tried.append(method)
        if method == "forkserver":
            return runner.isolate.Outcome("error", reason="Cannot re-initialize CUDA")
        return runner.isolate.Outcome("ok", {"threads": 1, "device_name": "Fake H100"})

    monkeypatch.setattr(runner.isolate, "default_start_method", lambda: "forkserver")
    monkeypatch.setattr(runner.isolate, "run", run)
    machine = runner.find_machine("cuda")
    assert tried == ["forkserver", "spawn"]
    assert (machine.method, machine.fingerprint["device_name"]) == ("spawn", "Fake H100")
    monkeypatch.setattr(
        runner.isolate, "run", lambda *args: runner.isolate.Outcome("error", reason="no driver")
    )
    with pytest.raises(runner.isolate.CannotRun, match="cuda does not answer: no driver"):
        runner.find_machine("cuda")
