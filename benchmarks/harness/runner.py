"""Runs points in a process each, and stores every outcome as a row."""

import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from . import isolate, provenance
from .point import Measurement
from .store import Store

PROBE_TIMEOUT_S = 120.0
CEILINGS_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Machine:
    """The device that is measured, its fingerprint, and how processes are started for it."""

    device: str
    facts: dict
    fingerprint: dict
    method: str

    def ceilings(self) -> dict:
        outcome = isolate.run(
            "harness.ceilings.ceilings", self.device, CEILINGS_TIMEOUT_S, self.method
        )
        return outcome.value or {"failed": outcome.reason}


def find_machine(device: str) -> Machine:
    """Asks a child about the device. Children are spawned if a forked one cannot use it."""
    for method in dict.fromkeys((isolate.default_start_method(), "spawn")):
        outcome = isolate.run("harness.provenance.device_facts", device, PROBE_TIMEOUT_S, method)
        if outcome.status == "ok":
            facts = {"device_name": provenance.cpu_name(), **outcome.value}
            return Machine(device, facts, provenance.fingerprint(facts), method)
    raise isolate.CannotRun(f"{device} does not answer: {outcome.reason}")


def interleaved(points: Iterable[Measurement], seed: int) -> list[Measurement]:
    """Small points first; equal sizes in random order, so that drift favors no curve."""
    points = list(points)
    random.Random(seed).shuffle(points)
    return sorted(points, key=lambda point: point.size)


def measure(
    points: Iterable[Measurement], store: Store, machine: Machine, timeout: float, deadline: float
) -> Iterator[dict]:
    """Measures the points that the store has not finished, and yields each row once it is stored.

    No point is started once time.monotonic() is past the deadline.
    """
    fingerprint = machine.fingerprint
    finished = store.finished(timeout)
    for point in points:
        if point.key(fingerprint) in finished:
            continue
        if time.monotonic() > deadline:
            return
        outcome = isolate.run(point.measured_by, point, timeout, machine.method)
        row = {
            "key": point.key(fingerprint),
            "config": point.config(fingerprint),
            **asdict(point),
            "status": outcome.status,
            "reason": outcome.reason,
            **dict.fromkeys(point.numbers),
            **(outcome.value or {}),
            "device_name": machine.facts["device_name"],
            "timeout_s": timeout,
            "wall_s": round(outcome.seconds, 3),
            "finished": provenance.now(),
        }
        store.append(row)
        yield row
