"""One run: measures the points that its folder lacks, and writes where the numbers come from."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from . import progress, provenance, runner
from .point import Measurement
from .runner import Machine
from .store import Store

DRIFT = 1.15
BUSY_PERCENT = 20


@dataclass(frozen=True)
class Session:
    """A run: its folder, its machine, and where it prints.

    conventions: what the columns of the study mean, for provenance.json and the report.
    """

    folder: Path
    machine: Machine
    command: list[str]
    out: Console
    timeout: float
    fresh: bool = False
    budget_s: float = math.inf
    conventions: dict[str, str] = field(default_factory=dict)

    def run(self, points: list[Measurement]) -> tuple[list[dict], dict]:
        """The rows comparable with `points`, measured now or earlier, and their provenance."""
        store = Store(self.folder, type(points[0]), self.fresh)
        try:
            for notice in store.notices:
                self.out.print(notice, markup=False)
            origin = self._measure(points, store)
            configs = {point.config(self.machine.fingerprint) for point in points}
            rows = [row for config in sorted(configs) for row in store.of_config(config)]
            others = len({row["key"] for row in store.rows}) - len(rows)
        finally:
            store.close()
        if others:
            self.out.print(f"Left out: {others} stored results of other shapes, machines or code.")
        return rows, origin

    def _measure(self, points: list[Measurement], store: Store) -> dict:
        """Measures the unfinished points. Without any, the provenance stays as it is."""
        path = self.folder / "provenance.json"
        finished = store.finished(self.timeout)
        pending = [p for p in points if p.key(self.machine.fingerprint) not in finished]
        if len(pending) < len(points):
            self.out.print(
                f"{len(points) - len(pending)} of {len(points)} points are done already."
            )
        earlier = _read(path)
        if not pending and earlier:
            return earlier
        machine = self.machine
        origin = provenance.collect(
            *(self.command, machine.device, machine.facts, points[0].seed), self.conventions
        )
        if earlier and not self.fresh:
            past = {name: earlier.get(name) for name in ("started", "command")}
            origin["earlier_runs"] = [*earlier.get("earlier_runs", []), past]
        origin["ceilings"] = machine.ceilings()
        write_json(path, origin)
        self._follow(pending, store, points[0].title)
        origin["ceilings_after"] = machine.ceilings()
        origin["steady"] = _steady(origin["ceilings"], origin["ceilings_after"])
        origin["finished"] = provenance.now()
        write_json(path, origin)
        return origin

    def _follow(
        self, pending: list[Measurement], store: Store, title: Callable[[dict], str]
    ) -> None:
        deadline = time.monotonic() + self.budget_s
        rows = runner.measure(pending, store, self.machine, self.timeout, deadline)
        shown = progress.follow(rows, len(pending), title, self.out)
        left = len(pending) - sum(1 for _ in shown)
        if left:
            self.out.print(
                f"Stopped after {self.budget_s:g} s; the same command measures the other {left}."
            )


def sign_off(folder: Path, origin: dict, out: Console) -> None:
    """Prints the last lines of a run: a warning if due, the report, the command."""
    warn_if_disturbed(origin, out)
    out.print(f"Report: {folder / 'report.html'}", markup=False, soft_wrap=True)
    out.print(f"To reproduce: {origin['command']}", markup=False, soft_wrap=True)


def warn_if_disturbed(origin: dict, out: Console) -> None:
    """Warns if other work ran on the machine, which distorts times."""
    busy = origin["cpu"]["busy_percent"]
    if busy > BUSY_PERCENT:
        signs = f"its processors were {busy:.0f} % busy before the run began"
    elif origin.get("steady") is False:
        signs = "its own speed changed during the run (ceilings in provenance.json)"
    else:
        return
    out.print(
        f"Other work seems to have run on this machine: {signs}. Treat the times with care.",
        style="yellow",
        soft_wrap=True,
    )


def write_json(path: Path, content: object) -> None:
    """Replaces the file in one step, so that it is never half written."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _read(path: Path) -> dict | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _steady(before: dict, after: dict) -> bool | None:
    """Whether the machine was as fast after the run as before."""
    common = [name for name in before if isinstance(after.get(name), float)]
    if not common:
        return None
    return all(1 / DRIFT <= after[name] / before[name] <= DRIFT for name in common)
