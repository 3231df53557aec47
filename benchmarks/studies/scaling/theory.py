"""The textbook memory of attention: two n x n matrices, the scores and the weights."""

from rich.table import Table

from ...present.tables import table
from ...present.units import size

SEQ_LENS = (512, 2048, 8192, 32768, 131072)
COUNTS = "two n x n fp16 matrices, the scores and the weights, for one head"


def score_matrices_bytes(n: int, heads: int = 1, item_bytes: int = 2) -> int:
    return 2 * n * n * heads * item_bytes


def relative_cost(n: int) -> float:
    return (n / SEQ_LENS[0]) ** 2


def textbook() -> Table:
    made = table(
        f"Memory of textbook attention: {COUNTS}",
        ("sequence length", "memory per head", "relative cost"),
        text=(),
    )
    for n in SEQ_LENS:
        made.add_row(f"{n:,}", size(score_matrices_bytes(n)), f"{relative_cost(n):,.0f}")
    return made
