"""The performance this package promises, measured in one run: claims, points and thresholds."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rich import box
from rich.table import Table

from ...harness.session import Session, warn_if_disturbed, write_json
from ...present import fits
from ..attention import errors, flops
from ..attention.point import AttentionPoint

SPEED = "speed"
TIME_EXPONENT = "time exponent"
MEMORY_EXPONENT = "memory exponent"
MEMORY_SAVING = "memory saving"
COLUMN = {TIME_EXPONENT: "time_ms", MEMORY_EXPONENT: "peak_memory_bytes"}
LENGTHS = (1024, 2048, 4096, 8192)
ROUNDS = 3
WINDOW = "sliding_window:256"
CONVENTIONS = {
    "tflops": flops.CONVENTION,
    "exponents": fits.TAIL,
    "max_error_ratio": errors.CONVENTION,
}


@dataclass(frozen=True)
class Bar:
    """A claim about `ours`: several lengths for an exponent, else one point against its rivals.

    Speed and memory saving are how many times better than the best rival that runs. The same code
    can differ by a third from one process to the next, so close calls take several rounds, each
    with processes and inputs of its own, and the median of the rounds counts.
    """

    measure: str
    ours: tuple[AttentionPoint, ...]
    rivals: tuple[AttentionPoint, ...] = ()
    at_least: float = -math.inf
    at_most: float = math.inf
    goal: float | None = None
    rounds: int = 1

    def points(self, number: int) -> tuple[AttentionPoint, ...]:
        """What round `number` measures."""
        return tuple(replace(point, seed=point.seed + number) for point in self.ours + self.rivals)

    def values(self, rows: dict[AttentionPoint, dict]) -> list[float]:
        """One value for each round that was measured whole."""
        measured = ([rows.get(p) for p in self.points(i)] for i in range(self.rounds))
        values = (
            self._value(found[: len(self.ours)], found[len(self.ours) :]) for found in measured
        )
        return [value for value in values if value is not None]

    def _value(self, ours: list[dict | None], rivals: list[dict | None]) -> float | None:
        if not all(row and row["status"] == "ok" for row in ours):
            return None
        if self.measure in COLUMN:
            column = COLUMN[self.measure]
            law = fits.fit([row["seq_len"] for row in ours], [row[column] for row in ours])
            return law and law.exponent
        column = "time_ms" if self.measure == SPEED else "peak_memory_bytes"
        theirs = [row[column] for row in rivals if row and row["status"] == "ok"]
        return min(theirs) / ours[0][column] if theirs else None

    def holds(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most


def cpu_bars(seed: int) -> list[Bar]:
    base = AttentionPoint(
        "fused", "full", "forward", 4096, 1, 8, 8, 64, "float32", "cpu", seed, 0, "cold"
    )
    bars = []
    for mode in ("forward", "forward+backward"):
        for variant in ("full", "causal"):
            ours = replace(base, mode=mode, variant=variant)
            for n in LENGTHS:
                point = replace(ours, seq_len=n)
                bars.append(_against(point, ["sdpa"], at_least=1 / 1.10, rounds=ROUNDS))
            bars.append(_against(ours, ["naive"], at_least=2.5 if mode == "forward" else 2.0))
        window = replace(base, mode=mode, variant=WINDOW)
        bars.append(_against(replace(window, seq_len=8192), ["sdpa"], at_least=8.0))
        bars.append(Bar(TIME_EXPONENT, _along(window), at_most=1.15))
    training = replace(base, mode="forward+backward")
    for variant in ("softcap:30", "alibi", "document:4"):
        ours = replace(training, variant=variant)
        bars.append(_against(ours, ["naive"], at_least=1.5))
        bars.append(Bar(MEMORY_EXPONENT, _along(ours), at_most=1.1))
    for variant in ("full", "causal", "softcap:30"):
        ours = replace(base, variant=variant)
        bars.append(_against(ours, ["flex"], at_least=1.5, rounds=ROUNDS))
    ours = replace(base, variant=WINDOW, seq_len=8192)
    bars.append(_against(ours, ["flex"], at_least=1.0, rounds=ROUNDS))
    for variant in ("full", "causal"):
        ours = replace(training, variant=variant)
        bars.append(Bar(MEMORY_EXPONENT, _along(ours), at_most=1.1))
    naive = replace(training, provider="naive")
    bars.append(Bar(MEMORY_EXPONENT, _along(naive), at_least=1.9, at_most=2.1))
    return bars


def cuda_bars(seed: int) -> list[Bar]:
    """16k tokens a batch, hidden size 2048; the rivals are pinned backends and FlexAttention."""
    bars = []
    for mode, bar in (("forward", 0.75), ("backward", 0.60)):
        for head_dim, n in ((128, 4096), (128, 16384), (64, 4096), (128, 1024)):
            for variant in ("full", "causal"):
                ours = _cuda_point(seed, variant, mode, n, head_dim)
                rivals = ["sdpa:cudnn", "sdpa:flash", *(["flex"] if n == 4096 else [])]
                bars.append(_against(ours, rivals, at_least=bar, goal=1.0))
    for variant in ("sliding_window:1023", "document:8", "alibi", "softcap:30"):
        for mode in ("forward", "forward+backward"):
            ours = _cuda_point(seed, variant, mode, 8192, 64)
            if variant != "softcap:30":
                masked = ["sdpa:efficient", "sdpa:cudnn"]
                bars.append(_against(ours, masked, at_least=2.0, goal=4.0))
            bars.append(_against(ours, ["flex"], at_least=0.9, goal=1.0))
    training = replace(_cuda_point(seed, "full", "forward+backward", 8192, 64), batch=1)
    bars.append(Bar(MEMORY_EXPONENT, _along(training), at_most=1.05))
    naive = replace(training, provider="naive")
    bars.append(Bar(MEMORY_SAVING, (training,), (naive,), at_least=20.0))
    return bars


BARS = {"cpu": cpu_bars, "cuda": cuda_bars}


def _cuda_point(seed: int, variant: str, mode: str, n: int, head_dim: int) -> AttentionPoint:
    heads, batch = 2048 // head_dim, 16384 // n
    return AttentionPoint(
        *("fused", variant, mode, n, batch, heads, heads, head_dim),
        *("bfloat16", "cuda", seed, 0, "cold"),
    )


def _against(ours: AttentionPoint, rivals: Iterable[str], **thresholds) -> Bar:
    return Bar(SPEED, (ours,), tuple(replace(ours, provider=r) for r in rivals), **thresholds)


def _along(point: AttentionPoint) -> tuple[AttentionPoint, ...]:
    return tuple(replace(point, seq_len=n) for n in LENGTHS)


def run(device: str, seed: int, session: Session) -> None:
    bars = BARS[device](seed)
    rows, origin = session.run(_plan(bars))
    by_key = {row["key"]: row for row in rows}
    fingerprint = session.machine.fingerprint
    measured = {p: by_key.get(p.key(fingerprint)) for p in _plan(bars)}
    judged = [_judge(bar, measured) for bar in bars]
    write_json(session.folder / "bars.json", judged)
    session.out.print(_table(judged, origin["device_name"]))
    verdicts = [line["verdict"] for line in judged]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    session.out.print(f"{len(judged)} bars: {counts}")
    warn_if_disturbed(origin, session.out)


def _plan(bars: list[Bar]) -> list[AttentionPoint]:
    """Every point once, round after round; what compiles for long comes last in each."""
    plan: dict[AttentionPoint, None] = {}
    for number in range(max(bar.rounds for bar in bars)):
        points = [point for bar in bars if number < bar.rounds for point in bar.points(number)]
        plan |= dict.fromkeys(sorted(points, key=lambda point: point.provider == "flex"))
    return list(plan)


def _judge(bar: Bar, rows: dict[AttentionPoint, dict]) -> dict:
    values = bar.values(rows)
    value = statistics.median(values) if values else None
    first = bar.ours[0]
    lengths = [point.seq_len for point in bar.ours]
    verdict = "not measured" if value is None else "holds" if bar.holds(value) else "MISSED"
    return {
        "provider": first.provider,
        "variant": first.variant,
        "mode": first.mode,
        "head_dim": first.head_dim,
        "seq_len": lengths[0] if len(lengths) == 1 else f"{lengths[0]}..{lengths[-1]}",
        "measure": bar.measure,
        "against": [point.provider for point in bar.rivals],
        "value": value,
        "rounds": values,
        "at_least": bar.at_least if bar.at_least > -math.inf else None,
        "at_most": bar.at_most if bar.at_most < math.inf else None,
        "goal": bar.goal,
        "verdict": verdict,
    }


def _table(judged: list[dict], device_name: str) -> Table:
    table = Table(title=f"Performance bars on {device_name}", box=box.SIMPLE_HEAD)
    for name in ("what", "mode", "measure"):
        table.add_column(name)
    for name in ("n", "head dim", "measured", "rounds", "bar", "goal", ""):
        table.add_column(name, justify="right")
    for line in judged:
        rivals = f" over {', '.join(line['against'])}" if line["against"] else ""
        table.add_row(
            f"{line['provider']} {line['variant']}",
            line["mode"],
            line["measure"] + rivals,
            str(line["seq_len"]),
            str(line["head_dim"]),
            "" if line["value"] is None else f"{line['value']:.2f}",
            f"{min(rounds):.2f} .. {max(rounds):.2f}" if len(rounds := line["rounds"]) > 1 else "",
            _interval(line["at_least"], line["at_most"]),
            "" if line["goal"] is None else f"{line['goal']:g}",
            line["verdict"],
        )
    return table


def _interval(low: float | None, high: float | None) -> str:
    if low is None:
        return f"<= {high:g}"
    return f">= {low:.3g}" if high is None else f"{low:g} .. {high:g}"
