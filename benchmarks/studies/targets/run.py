"""A run of the performance targets: measures their points in one session, and judges them."""

import math
import statistics

from rich.table import Table

from ...harness.session import Session, warn_if_disturbed, write_json
from ...present import fits
from ...present.tables import table
from ...present.units import or_blank
from ..attention import errors, flops
from ..attention.point import AttentionPoint
from .table import TARGETS
from .target import Target

HEAD = (
    *("what", "mode", "measure", "n", "head dim", "measured", "rounds", "target", "goal"),
    "verdict",
)
CONVENTIONS = {
    "tflops": flops.CONVENTION,
    "exponents": fits.TAIL,
    "max_error_ratio": errors.CONVENTION,
}


def run(device: str, seed: int, session: Session) -> None:
    targets = TARGETS[device](seed)
    rows, origin = session.run(_plan(targets))
    by_key = {row["key"]: row for row in rows}
    fingerprint = session.machine.fingerprint
    measured = {p: by_key.get(p.key(fingerprint)) for p in _plan(targets)}
    judged = [_judge(target, measured) for target in targets]
    write_json(session.folder / "targets.json", judged)
    session.out.print(_table(judged, origin["device_name"]))
    verdicts = [line["verdict"] for line in judged]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    session.out.print(f"{len(judged)} targets: {counts}")
    warn_if_disturbed(origin, session.out)


def _plan(targets: list[Target]) -> list[AttentionPoint]:
    """Every point once, round after round; FlexAttention, slow to compile, is last in each."""
    plan: dict[AttentionPoint, None] = {}
    for number in range(max(target.rounds for target in targets)):
        points = [
            point for target in targets if number < target.rounds for point in target.points(number)
        ]
        plan |= dict.fromkeys(sorted(points, key=lambda point: point.provider == "flex"))
    return list(plan)


def _judge(target: Target, rows: dict[AttentionPoint, dict]) -> dict:
    values = target.values(rows)
    value = statistics.median(values) if values else None
    first = target.ours[0]
    lengths = [point.seq_len for point in target.ours]
    verdict = "not measured" if value is None else "holds" if target.holds(value) else "MISSED"
    return {
        "provider": first.provider,
        "variant": first.variant,
        "mode": first.mode,
        "head_dim": first.head_dim,
        "seq_len": lengths[0] if len(lengths) == 1 else f"{lengths[0]}..{lengths[-1]}",
        "measure": target.measure,
        "against": [point.provider for point in target.rivals],
        "value": value,
        "rounds": values,
        "at_least": target.at_least if target.at_least > -math.inf else None,
        "at_most": target.at_most if target.at_most < math.inf else None,
        "goal": target.goal,
        "verdict": verdict,
    }


def _table(judged: list[dict], device_name: str) -> Table:
    made = table(f"Performance targets on {device_name}", HEAD, text=("what", "mode", "measure"))
    for line in judged:
        rivals = f" over {', '.join(line['against'])}" if line["against"] else ""
        rounds = line["rounds"]
        made.add_row(
            f"{line['provider']} {line['variant']}",
            line["mode"],
            line["measure"] + rivals,
            str(line["seq_len"]),
            str(line["head_dim"]),
            or_blank(line["value"], "{:.2f}"),
            f"{min(rounds):.2f} to {max(rounds):.2f}" if len(rounds) > 1 else "",
            _interval(line["at_least"], line["at_most"]),
            or_blank(line["goal"], "{:g}"),
            line["verdict"],
        )
    return made


def _interval(low: float | None, high: float | None) -> str:
    if low is None:
        return f"<= {high:g}"
    return f">= {low:.3g}" if high is None else f"{low:g} to {high:g}"
