import gc
import time

import pytest
import torch

from benchmarks.harness import timing


def test_a_known_duration_is_measured():
    times = timing.times(lambda: time.sleep(0.02), "cpu", repeats=5, cache="warm")
    assert len(times) == 5
    assert all(20 <= t < 60 for t in times)


def test_quantiles():
    found = timing.quantiles([5.0, 1.0, 2.0, 3.0, 4.0, 100.0])
    assert found == {
        "time_ms": 3.5,
        "time_ms_p20": 2.0,
        "time_ms_p80": 5.0,
        "repeats": 6,
    }


@pytest.mark.parametrize(
    ("done", "elapsed", "repeats", "stop"),
    [
        (4, 0.0, 5, False),
        (5, 0.0, 5, True),
        (99, 0.1, 0, False),
        (100, 0.1, 0, True),
        (2, 10.0, 0, False),
        (3, 10.0, 0, True),
        (3, 0.5, 0, False),
        (1, 61.0, 0, True),
        (0, 0.0, 0, False),
    ],
)
def test_repeats_fit_the_budget(done, elapsed, repeats, stop):
    assert timing.enough(done, elapsed, repeats) is stop


def test_caches_are_flushed_before_every_cold_repeat_and_never_when_warm(monkeypatch):
    events = []
    monkeypatch.setattr(timing, "FLUSH_BYTES", 2**10)
    monkeypatch.setattr(torch.Tensor, "zero_", lambda self: events.append("flush"))
    timing.times(lambda: events.append("call"), "cpu", repeats=3, cache="cold")
    assert events == ["flush", "call"] * 3
    events.clear()
    timing.times(lambda: events.append("call"), "cpu", repeats=2, cache="warm")
    assert events == ["call"] * 2


def test_flushing_is_not_timed(monkeypatch):
    monkeypatch.setattr(timing, "flusher", lambda device, cache: lambda: time.sleep(0.05))
    assert max(timing.times(lambda: None, "cpu", repeats=3, cache="cold")) < 25


class FakeEvent:
    """Stands for torch.cuda.Event on a device whose every call takes 4 ms."""

    clock = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = FakeEvent.clock

    def elapsed_time(self, end):
        return end.at - self.at


@pytest.mark.parametrize("repeats", [0, 4, 25])
def test_cuda_events_enclose_the_call_and_not_the_flush(monkeypatch, repeats):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(timing, "BUDGET_S", 0.0)

    def flush():
        FakeEvent.clock += 1000.0

    def call():
        FakeEvent.clock += 4.0
        time.sleep(0.004)

    monkeypatch.setattr(timing, "flusher", lambda device, cache: flush)
    times = timing.times(call, "cuda", repeats, "cold")
    assert times == [4.0] * len(times)
    assert len(times) == repeats or (not repeats and timing.MIN_REPEATS <= len(times) <= 100)
    assert waits


def test_collection_is_on_again_afterwards():
    timing.times(lambda: None, "cpu", repeats=1, cache="warm")
    assert gc.isenabled()
