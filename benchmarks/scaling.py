"""The scaling run: plan the points, measure them, write what they say."""

import itertools
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from . import analysis, fits, plots, progress, provenance, report, runner, tables
from .points import Point
from .runner import Machine
from .store import Store

DRIFT = 1.15


@dataclass(frozen=True)
class Defaults:
    """What is measured on a device when nothing is asked for."""

    curves: tuple[tuple[str, str], ...]
    seq_lens: tuple[int, ...]
    dtype: str

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(provider for provider, _ in self.curves))


WINDOW = ("fused", "sliding_window:256")
DEFAULTS = {
    "cpu": Defaults(
        curves=(("naive", "full"), ("sdpa", "full"), ("fused", "full"), WINDOW),
        seq_lens=tuple(2**i for i in range(8, 14)),
        dtype="float32",
    ),
    "cuda": Defaults(
        curves=(
            *(("naive", "full"), ("sdpa:flash", "full"), ("sdpa:efficient", "full")),
            *(("sdpa:cudnn", "full"), ("flex", "full"), ("fused", "full"), WINDOW),
        ),
        seq_lens=tuple(2**i for i in range(9, 17)),
        dtype="bfloat16",
    ),
}


@dataclass(frozen=True)
class Grid:
    """What to measure; providers and variants left out mean the device's default curves."""

    device: str
    providers: tuple[str, ...] | None
    variants: tuple[str, ...] | None
    modes: tuple[str, ...]
    seq_lens: tuple[int, ...] | None
    batch: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str | None
    seed: int
    repeats: int
    cache: str

    def points(self) -> list[Point]:
        defaults = DEFAULTS[self.device]
        curves = defaults.curves
        if self.providers or self.variants:
            providers = self.providers or defaults.providers
            curves = tuple(itertools.product(providers, self.variants or ("full",)))
        seq_lens = self.seq_lens or defaults.seq_lens
        points = [
            Point(
                provider=provider,
                variant=variant,
                mode=mode,
                seq_len=n,
                batch=self.batch,
                heads=self.heads,
                kv_heads=self.kv_heads,
                head_dim=self.head_dim,
                dtype=self.dtype or defaults.dtype,
                device=self.device,
                seed=self.seed,
                repeats=self.repeats,
                cache=self.cache,
            )
            for (provider, variant), mode, n in itertools.product(curves, self.modes, seq_lens)
        ]
        return runner.interleaved(points, self.seed)


@dataclass(frozen=True)
class Results:
    """A finished run: its comparable rows, what they say, and where they came from."""

    frame: pd.DataFrame
    fitted: list[dict]
    provenance: dict


def run(
    points: list[Point],
    folder: Path,
    machine: Machine,
    command: list[str],
    *,
    timeout: float,
    fresh: bool,
    out: Console,
    budget_s: float = math.inf,
) -> Results:
    """Measures what the folder does not hold yet and rewrites its summary files."""
    store = Store(folder, fresh)
    try:
        for notice in store.notices:
            out.print(notice, style="yellow", markup=False)
        origin = _measure(points, store, machine, command, timeout, budget_s, fresh, out)
        configs = {point.config(machine.fingerprint) for point in points}
        rows = [row for config in sorted(configs) for row in store.of_config(config)]
        left_out = len({row["key"] for row in store.rows}) - len(rows)
    finally:
        store.close()
    if left_out:
        out.print(
            f"{left_out} stored results of other shapes, machines or code are left out.",
            style="yellow",
        )
    return Results(analysis.summarise(rows), fits.fit_rows(rows), origin)


def _measure(points, store, machine, command, timeout, budget_s, fresh, out) -> dict:
    """Runs the unfinished points; returns the provenance, which is rewritten only if there were."""
    path = store.path.with_name("provenance.json")
    finished = store.finished(timeout)
    pending = [p for p in points if p.key(machine.fingerprint) not in finished]
    if len(pending) < len(points):
        out.print(f"{len(points) - len(pending)} of {len(points)} points were measured before.")
    earlier = _read(path)
    if not pending and earlier:
        return earlier
    origin = provenance.collect(command, machine.device, machine.facts, points[0].seed)
    if earlier and not fresh:
        past = {name: earlier.get(name) for name in ("started", "command")}
        origin["earlier_runs"] = [*earlier.get("earlier_runs", []), past]
    origin["ceilings"] = machine.ceilings()
    write_json(path, origin)
    deadline = time.monotonic() + budget_s
    rows = runner.measure(pending, store, machine, timeout, deadline)
    done = sum(1 for _ in progress.follow(rows, len(pending), out))
    if done < len(pending):
        out.print(
            f"stopped after {budget_s:g} s with {len(pending) - done} points to go; resume by"
        )
        out.print("running the same command again", style="dim")
    origin["ceilings_after"] = machine.ceilings()
    origin["finished"] = provenance.now()
    origin["steady"] = _steady(origin["ceilings"], origin["ceilings_after"])
    write_json(path, origin)
    return origin


def _read(path: Path) -> dict | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _steady(before: dict, after: dict) -> bool | None:
    """Whether the machine did the same work at the same speed before and after."""
    common = [name for name in before if isinstance(after.get(name), float)]
    if not common:
        return None
    return all(1 / DRIFT <= after[name] / before[name] <= DRIFT for name in common)


def write_outputs(folder: Path, results: Results) -> None:
    frame, origin = results.frame, results.provenance
    write_json(folder / "fits.json", results.fitted)
    frame.to_csv(folder / "summary.csv", index=False)
    plots.draw_all(frame, results.fitted, folder, caption(frame, origin))
    report.write(folder, frame, results.fitted, origin)


def caption(frame: pd.DataFrame, origin: dict) -> str:
    point = frame.iloc[0]
    heads = f"{point['heads']} heads"
    if point["kv_heads"] != point["heads"]:
        heads += f" on {point['kv_heads']}"
    modes = " and ".join(sorted(frame["mode"].unique()))
    return (
        f"{origin['device_name']}, batch {point['batch']}, {heads} of {point['head_dim']}, "
        f"{point['dtype']}, {modes}"
    )


def conclude(folder: Path, results: Results, out: Console) -> None:
    """Prints what was found and how to find it again."""
    tables.print_summary(out, results.frame, results.fitted)
    if results.provenance.get("steady") is False:
        out.print(
            "The machine's own speed changed during the run (see ceilings in provenance.json): "
            "other work was going on, so treat the times with care.",
            style="yellow",
        )
    out.print(f"Report: {folder / 'report.html'}", markup=False)
    out.print(f"To reproduce: {results.provenance['command']}", markup=False)


def write_json(path: Path, content: object) -> None:
    """Replaces the file at once, so that it is never half written."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
