"""Tables on the terminal, and the cells that several studies fill alike."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

EXPONENT_HEAD = ("exponent", "95 % interval", "fitted over")


def table(title: str, head: Iterable[str], text: Iterable[str]) -> Table:
    """An empty table. Columns named in `text` are aligned left, the others right."""
    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in head:
        made.add_column(name, justify="left" if name in text else "right")
    return made


def print_lines(out: Console, lines: Iterable[str]) -> None:
    """Prints sentences, each on a line that nothing wraps."""
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


def exponent_cells(law: dict) -> list[str]:
    """A fitted power law as cells under EXPONENT_HEAD."""
    if law["exponent"] is None:
        return ["-", "", "too few points"]
    return [
        f"{law['exponent']:.2f}",
        f"{law['ci_low']:.2f} to {law['ci_high']:.2f}",
        f"{law['points']} lengths, {law['tail_from']:,} to {law['tail_to']:,}",
    ]
