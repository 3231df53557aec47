"""A run of decoding: which points it measures, what it writes and prints."""

import itertools
from dataclasses import dataclass, replace

from ...harness import runner
from ...harness.session import Session, sign_off, write_json
from . import analysis, pictures, problem, report, tables, worker
from .point import DecodePoint
from .providers import BASELINE, OURS, WITHOUT

CONVENTIONS = {
    "time": worker.TIME,
    "step": worker.STEP,
    "speedup": worker.SPEEDUP,
    "recompute": worker.RECOMPUTE,
    "gbytes_per_s": problem.BYTES,
    "max_error_ratio": worker.ERROR,
}
PROVIDERS = (OURS, BASELINE, WITHOUT)


@dataclass(frozen=True)
class DecodeDefaults:
    """What is measured on a device by default; the first of each tuple is the base."""

    contexts: tuple[int, ...]
    batches: tuple[int, ...]
    page_sizes: tuple[int, ...]
    groups: tuple[int, ...]
    kv_dtypes: tuple[str, ...]
    heads: int
    head_dim: int
    dtype: str


DEFAULTS = {
    "cpu": DecodeDefaults(
        contexts=tuple(2**i for i in range(8, 13)),
        batches=(4, 1, 16),
        page_sizes=(64, 16, 256),
        groups=(4, 1, 8),
        kv_dtypes=("float32", "bfloat16", "int8", "float8_e4m3fn"),
        heads=8,
        head_dim=64,
        dtype="float32",
    ),
    "cuda": DecodeDefaults(
        contexts=tuple(2**i for i in range(10, 17)),
        batches=(32, 1, 128),
        page_sizes=(64, 16, 256),
        groups=(4, 1, 8),
        kv_dtypes=("bfloat16", "int8", "float8_e4m3fn"),
        heads=32,
        head_dim=128,
        dtype="bfloat16",
    ),
}


@dataclass(frozen=True)
class DecodeGrid:
    """What to measure. None means the defaults of the device.

    The curves are every context at the first batch, page size, group and dtype. The other values
    are measured at the context `sweep_at`, one parameter changed at a time.
    """

    device: str
    providers: tuple[str, ...] | None
    contexts: tuple[int, ...] | None
    batches: tuple[int, ...] | None
    page_sizes: tuple[int, ...] | None
    groups: tuple[int, ...] | None
    kv_dtypes: tuple[str, ...] | None
    heads: int | None
    head_dim: int | None
    dtype: str | None
    seed: int
    repeats: int

    def points(self) -> list[DecodePoint]:
        points = [
            point
            for provider, problem in itertools.product(self.providers or PROVIDERS, self._plan())
            if (point := _of_provider(problem, provider)) is not None
        ]
        return runner.interleaved(dict.fromkeys(points), self.seed)

    def base(self) -> DecodePoint:
        """The first point of the curve of the paged cache: others change a parameter of it."""
        known = DEFAULTS[self.device]
        return DecodePoint(
            provider=OURS,
            context=self._contexts()[0],
            **{name: found[0] for name, found in self._values().items()},
            heads=self.heads or known.heads,
            head_dim=self.head_dim or known.head_dim,
            dtype=self.dtype or known.dtype,
            device=self.device,
            seed=self.seed,
            repeats=self.repeats,
        )

    def _plan(self) -> list[DecodePoint]:
        base, contexts = self.base(), self._contexts()
        swept = replace(base, context=sweep_at(contexts))
        return [
            *(replace(base, context=context) for context in contexts),
            *(
                replace(swept, **{name: value})
                for name, values in self._values().items()
                for value in values[1:]
            ),
        ]

    def _contexts(self) -> tuple[int, ...]:
        return self.contexts or DEFAULTS[self.device].contexts

    def _values(self) -> dict[str, tuple]:
        known = DEFAULTS[self.device]
        dtype = self.dtype or known.dtype
        return {
            "batch": self.batches or known.batches,
            "page_size": self.page_sizes or known.page_sizes,
            "group": self.groups or known.groups,
            "kv_dtype": self.kv_dtypes or (dtype, *(d for d in known.kv_dtypes if d != dtype)),
        }


def sweep_at(contexts: tuple[int, ...]) -> int:
    """The context at which other parameters are varied: the second longest, to save time."""
    return sorted(contexts)[-2:][0]


def _of_provider(problem: DecodePoint, provider: str) -> DecodePoint | None:
    """The problem for a provider; None if it differs in nothing that the provider uses."""
    if provider in (BASELINE, WITHOUT):
        if problem.kv_dtype != problem.dtype:
            return None
        problem = replace(problem, page_size=0)
    return replace(problem, provider=provider)


def run(grid: DecodeGrid, session: Session) -> None:
    rows, origin = session.run(grid.points())
    if not rows:
        session.out.print("Nothing was measured.")
        return
    copy = origin["ceilings"].get("copy_gbytes_per_s")
    base = grid.base()
    frame = analysis.summarize(rows, copy)
    curves = analysis.curves(frame, base)
    laws = analysis.laws(curves)
    folder, out = session.folder, session.out
    frame.to_csv(folder / "summary.csv", index=False)
    write_json(folder / "fits.json", laws)
    pictures.draw_cost(curves, laws, folder / "cost", curve_caption(origin, base))
    pictures.draw_traffic(frame, base, copy, folder / "traffic", caption(origin, base))
    report.write(folder, frame, laws, origin)
    tables.print_summary(out, frame, laws)
    sign_off(folder, origin, out)


def curve_caption(origin: dict, base: DecodePoint) -> str:
    return (
        f"{caption(origin, base)}, batch {base.batch}, group {base.group}, "
        f"pages of {base.page_size}"
    )


def caption(origin: dict, base: DecodePoint) -> str:
    return (
        f"{origin['device_name']}, {base.heads} heads of {base.head_dim}, {base.dtype}, one layer"
    )
