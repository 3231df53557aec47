"""Every end of a child process is a typed outcome."""

import time
from multiprocessing import forkserver

import psutil
import pytest

from benchmarks.harness import isolate

from ..points import fake

LONG = 60.0


def outcome_of(name, timeout=LONG):
    method = isolate.default_start_method()
    return isolate.run("studies.attention.worker.measure", fake(name), timeout, method)


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("raises", "error", "ValueError: no such luck"),
        ("refuses", "unsupported", "only on Tuesdays"),
        ("runs_out", "oom", "MemoryError"),
        ("asks_too_much", "oom", "can't allocate memory"),
        ("is_killed", "oom", "killed by the system"),
        ("exits", "error", "exit code 3"),
        ("crashes", "error", "SIGSEGV"),
    ],
)
def test_failures_are_typed(name, status, reason):
    outcome = outcome_of(name)
    assert outcome.status == status
    assert reason in outcome.reason
    assert "\n" not in outcome.reason


def test_a_hang_is_a_timeout_and_leaves_no_process():
    started = time.monotonic()
    outcome = outcome_of("sleeps", timeout=3.0)
    assert outcome.status == "timeout"
    assert outcome.reason == "no result within 3 s"
    assert time.monotonic() - started < 20
    if isolate.default_start_method() == "forkserver":
        assert psutil.Process(forkserver._forkserver._forkserver_pid).children() == []


def test_a_measurement_comes_back_with_numbers():
    outcome = outcome_of("quick")
    assert outcome.status == "ok", outcome.reason
    assert outcome.value["repeats"] == 2
    assert outcome.value["time_ms"] > 0
    assert outcome.seconds > 0


def test_spawned_processes_measure_too():
    outcome = isolate.run("studies.attention.worker.measure", fake("quick"), LONG, "spawn")
    assert outcome.status == "ok", outcome.reason


def test_signs_of_memory_exhaustion_in_a_crash_are_read():
    log = "terminate called after throwing an instance of 'std::bad_alloc'\n"
    assert isolate._post_mortem(-6, log).status == "oom"
    assert isolate._post_mortem(-6, "assertion failed\n").status == "error"
