"""Progress of a run: a bar on a terminal, elsewhere one plain line for each point."""

from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..present.units import milliseconds, size

LOG_WIDTH = 160


def console(stderr: bool = False) -> Console:
    """A console. Without a terminal it is wide and plain, so that logs keep whole tables."""
    plain = Console(stderr=stderr, highlight=False)
    if plain.is_terminal:
        return plain
    return Console(stderr=stderr, highlight=False, width=LOG_WIDTH, no_color=True)


def follow(
    rows: Iterable[dict], total: int, title: Callable[[dict], str], out: Console
) -> Iterator[dict]:
    """Yields the rows and shows each; `title` names the point of a row."""
    if not out.is_terminal:
        for number, row in enumerate(rows, 1):
            out.print(f"[{number:>{len(str(total))}}/{total}] {describe(row, title)}", markup=False)
            yield row
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out) as progress:
        task = progress.add_task("measuring", total=total)
        for row in rows:
            progress.update(task, advance=1, description=describe(row, title))
            yield row


def describe(row: dict, title: Callable[[dict], str]) -> str:
    point = title(row)
    if row["status"] != "ok":
        reason = f" ({row['reason']})" if row["reason"] else ""
        return f"{point}: {row['status']}{reason}"
    return (
        f"{point}: {milliseconds(row['time_ms'])} (median of {row['repeats']}), "
        f"{size(row['peak_memory_bytes'])}"
    )
