"""A run of scaling: which points it measures, what it writes and prints."""

import itertools
from dataclasses import dataclass

import pandas as pd

from ...harness import runner
from ...harness.session import Session, sign_off, write_json
from ...present import fits
from ..attention import errors, flops
from ..attention.point import AttentionPoint
from . import analysis, pictures, report, tables, theory

CONVENTIONS = {
    "tflops": flops.CONVENTION,
    "exponents": fits.TAIL,
    "max_error_ratio": errors.CONVENTION,
    "theory": theory.COUNTS,
}


@dataclass(frozen=True)
class ScalingDefaults:
    """What is measured on a device by default."""

    curves: tuple[tuple[str, str], ...]
    seq_lens: tuple[int, ...]
    dtype: str

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(provider for provider, _ in self.curves))


WINDOW = ("fused", "sliding_window:256")
DEFAULTS = {
    "cpu": ScalingDefaults(
        curves=(("naive", "full"), ("sdpa", "full"), ("fused", "full"), WINDOW),
        seq_lens=tuple(2**i for i in range(8, 14)),
        dtype="float32",
    ),
    "cuda": ScalingDefaults(
        curves=(
            *(("naive", "full"), ("sdpa:flash", "full"), ("sdpa:efficient", "full")),
            *(("sdpa:cudnn", "full"), ("flex", "full"), ("fused", "full"), WINDOW),
        ),
        seq_lens=tuple(2**i for i in range(9, 17)),
        dtype="bfloat16",
    ),
}


@dataclass(frozen=True)
class ScalingGrid:
    """What to measure. None means the defaults of the device."""

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

    def points(self) -> list[AttentionPoint]:
        defaults = DEFAULTS[self.device]
        curves = defaults.curves
        if self.providers or self.variants:
            providers = self.providers or defaults.providers
            curves = tuple(itertools.product(providers, self.variants or ("full",)))
        seq_lens = self.seq_lens or defaults.seq_lens
        points = [
            AttentionPoint(
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


def run(grid: ScalingGrid, session: Session) -> None:
    rows, origin = session.run(grid.points())
    if not rows:
        session.out.print("Nothing was measured.")
        return
    frame, fitted = analysis.summarize(rows), analysis.fit_curves(rows)
    folder, out = session.folder, session.out
    write_json(folder / "fits.json", fitted)
    frame.to_csv(folder / "summary.csv", index=False)
    pictures.draw_all(frame, fitted, folder, caption(frame, origin))
    report.write(folder, frame, fitted, origin)
    tables.print_summary(out, frame, fitted)
    sign_off(folder, origin, out)


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
