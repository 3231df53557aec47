"""The progress of a run on the terminal, and its loss curve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .errors import optional_import


class Display:
    """A progress bar on a terminal, else a line per evaluation; nothing unless ``shown``."""

    def __init__(self, shown: bool) -> None:
        self.out = optional_import("rich.console", "the progress bar").Console(
            highlight=False, quiet=not shown
        )
        self.status = ""

    def steps(self, first: int, last: int) -> Iterator[int]:
        """Iterate over the steps from first to last, with the progress bar."""
        progress = optional_import("rich.progress", "the progress bar")
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
        )
        shown = self.out.is_terminal and not self.out.quiet
        with progress.Progress(*columns, console=self.out, disable=not shown) as bar:
            task = bar.add_task("training", total=last, completed=first - 1)
            for step in range(first, last + 1):
                yield step
                bar.update(task, advance=1, description=self.status)

    def trained(self, loss: float) -> None:
        held_out = self.status.partition(", ")[2]
        self.status = f"loss {loss:.3f}" + (f", {held_out}" if held_out else "")

    def evaluated(self, step: int, loss: float, held_out: float, rate: float) -> None:
        self.status = f"loss {loss:.3f}, held out {held_out:.3f}"
        self.say(f"step {step:>6,}  {self.status}  {rate:,.0f} tokens/s")

    def say(self, text: str) -> None:
        """Print text; control characters, which an untrained model writes, are replaced."""
        shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
        self.out.print(shown, markup=False, soft_wrap=True)


def draw(path: Path, losses: list[float], held_out: list[tuple[int, float]], caption: str) -> None:
    """Draw the loss curve: each step in gray, the running mean, and the held-out loss."""
    optional_import("matplotlib", "the loss curve")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    steps = range(1, len(losses) + 1)
    axes.plot(steps, losses, color="#bbbbbb", linewidth=0.6, label="each step")
    axes.plot(steps, running_mean(losses), color="#0072B2", linewidth=1.8, label="running mean")
    x, y = zip(*held_out, strict=True)
    axes.plot(x, y, color="#D55E00", marker="o", markersize=4, linestyle="--", label="held out")
    axes.annotate(
        f"{y[-1]:.2f}", (x[-1], y[-1]), (5, 6), textcoords="offset points", color="#D55E00"
    )
    axes.set_xlabel(f"step\n{caption}")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(color="#e6e6e6")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def running_mean(values: list[float], weight: float = 0.05) -> list[float]:
    """Exponential moving average, corrected for the bias of the first values."""
    means, mean, total = [], 0.0, 0.0
    for value in values:
        mean, total = mean + weight * (value - mean), total + weight * (1 - total)
        means.append(mean / total)
    return means
