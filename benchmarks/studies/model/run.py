"""A run of whole models: which points it measures, what it writes and prints."""

import itertools
from dataclasses import dataclass

from ...harness import runner
from ...harness.session import Session, sign_off
from . import analysis, pictures, report, tables, worker
from .point import PROVIDERS, ModelPoint

CONVENTIONS = {
    "train": worker.TRAIN,
    "generate": worker.GENERATE,
    "memory": worker.MEMORY,
    "speedup": worker.SPEEDUP,
}


@dataclass(frozen=True)
class ModelDefaults:
    """What is measured on a device by default."""

    seq_lens: tuple[int, ...]
    batch: int
    new_tokens: int
    dtype: str


DEFAULTS = {
    "cpu": ModelDefaults(seq_lens=(128, 256, 512), batch=1, new_tokens=8, dtype="float32"),
    "cuda": ModelDefaults(
        seq_lens=tuple(2**i for i in range(9, 14)), batch=4, new_tokens=64, dtype="bfloat16"
    ),
}


@dataclass(frozen=True)
class ModelGrid:
    """What to measure. None means the defaults of the device."""

    device: str
    providers: tuple[str, ...] | None
    tasks: tuple[str, ...]
    seq_lens: tuple[int, ...] | None
    shape: str
    batch: int | None
    new_tokens: int | None
    dtype: str | None
    seed: int
    repeats: int

    def points(self) -> list[ModelPoint]:
        known = DEFAULTS[self.device]
        points = [
            ModelPoint(
                provider=provider,
                task=task,
                seq_len=n,
                shape=self.shape,
                batch=self.batch or known.batch,
                new_tokens=self.new_tokens or known.new_tokens,
                dtype=self.dtype or known.dtype,
                device=self.device,
                seed=self.seed,
                repeats=self.repeats,
            )
            for provider, task, n in itertools.product(
                self.providers or PROVIDERS, self.tasks, self.seq_lens or known.seq_lens
            )
        ]
        return runner.interleaved(points, self.seed)


def run(grid: ModelGrid, session: Session) -> None:
    rows, origin = session.run(grid.points())
    if not rows:
        session.out.print("Nothing was measured.")
        return
    frame = analysis.summarize(rows)
    folder, out = session.folder, session.out
    frame.to_csv(folder / "summary.csv", index=False)
    drawn = pictures.draw_all(frame, folder, caption(origin, frame))
    report.write(folder, frame, drawn, origin)
    tables.print_summary(out, frame)
    sign_off(folder, origin, out)


def caption(origin: dict, frame) -> str:
    point = frame.iloc[0]
    return (
        f"{origin['device_name']}, {point['shape']}, batch {point['batch']}, {point['dtype']}, "
        f"{point['new_tokens']} new tokens"
    )
