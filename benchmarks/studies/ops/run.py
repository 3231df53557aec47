"""A run of the ops: which points it measures, what it writes and prints."""

import itertools
from dataclasses import dataclass

from ...harness import runner
from ...harness.session import Session, sign_off
from . import analysis, pictures, report, tables, worker
from .point import OpPoint
from .providers import BASELINE, OURS, has_liger
from .table import OPS

CONVENTIONS = {
    "gbytes_per_s": worker.BYTES,
    "speedup": worker.SPEEDUP,
    "max_error_ratio": worker.ERROR,
}


@dataclass(frozen=True)
class OpsSizes:
    hidden: tuple[int, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class OpsDefaults:
    """What is measured on a device by default."""

    sizes: OpsSizes
    dtype: str
    own: dict[str, OpsSizes]  # ops with sizes of their own: those that have a vocabulary

    def of(self, op: str) -> OpsSizes:
        """The sizes of an op. A form of another op is measured at the largest alone."""
        if op in self.own:
            return self.own[op]
        plain = plain_form(op)
        if plain is None:
            return self.sizes
        known = self.of(plain)
        return OpsSizes(known.hidden[-1:], known.rows[-1:])


def plain_form(op: str) -> str | None:
    """The op that this one is a form of, as `gelu_tanh` is of `gelu`; None if it is plain."""
    return next((name for name in OPS if op.startswith(f"{name}_")), None)


GPT2_VOCABULARY, LLAMA3_VOCABULARY = 50_257, 128_256
DEFAULTS = {
    "cpu": OpsDefaults(
        sizes=OpsSizes(hidden=(256, 1024, 4096), rows=(1024,)),
        dtype="float32",
        own={
            "cross_entropy": OpsSizes(hidden=(1024, 8192, GPT2_VOCABULARY), rows=(256,)),
            "linear_cross_entropy": OpsSizes(hidden=(GPT2_VOCABULARY,), rows=(4096,)),
            "linear_cross_entropy_weighted_smoothed": OpsSizes(hidden=(8192,), rows=(1024,)),
        },
    ),
    "cuda": OpsDefaults(
        sizes=OpsSizes(hidden=tuple(2**i for i in range(10, 16)), rows=(8192,)),
        dtype="bfloat16",
        own={
            name: OpsSizes(hidden=(GPT2_VOCABULARY, LLAMA3_VOCABULARY), rows=(8192,))
            for name in ("cross_entropy", "linear_cross_entropy")
        },
    ),
}


@dataclass(frozen=True)
class OpsGrid:
    """What to measure. None means the defaults of the device."""

    device: str
    ops: tuple[str, ...] | None
    providers: tuple[str, ...] | None
    modes: tuple[str, ...]
    hidden: tuple[int, ...] | None
    rows: tuple[int, ...] | None
    dtype: str | None
    seed: int
    repeats: int

    def points(self) -> list[OpPoint]:
        defaults = DEFAULTS[self.device]
        points = [
            OpPoint(
                provider=provider,
                op=op,
                mode=mode,
                rows=rows,
                hidden=hidden,
                dtype=self.dtype or defaults.dtype,
                device=self.device,
                seed=self.seed,
                repeats=self.repeats,
            )
            for op, mode in itertools.product(self.ops or OPS, self.modes)
            for provider in self.providers or default_providers(self.device, op)
            for hidden, rows in self._sizes(defaults.of(op))
        ]
        return runner.interleaved(points, self.seed)

    def _sizes(self, known: OpsSizes):
        return itertools.product(self.hidden or known.hidden, self.rows or known.rows)


def default_providers(device: str, op: str) -> tuple[str, ...]:
    """Providers that can run. On a CPU, compile is slow and measures plain forms only."""
    liger = ("liger",) if device == "cuda" and has_liger() else ()
    compiled = ("compile",) if device == "cuda" or plain_form(op) is None else ()
    return (BASELINE, *compiled, *liger, OURS)


def run(grid: OpsGrid, session: Session) -> None:
    rows, origin = session.run(grid.points())
    if not rows:
        session.out.print("Nothing was measured.")
        return
    copy = origin["ceilings"].get("copy_gbytes_per_s")
    frame = analysis.summarize(rows, copy)
    folder, out = session.folder, session.out
    frame.to_csv(folder / "summary.csv", index=False)
    drawn = pictures.draw_all(frame, copy, folder, caption(origin, frame))
    report.write(folder, frame, drawn, origin)
    tables.print_summary(out, frame)
    sign_off(folder, origin, out)


def caption(origin: dict, frame) -> str:
    return f"{origin['device_name']}, {frame.iloc[0]['dtype']}"
