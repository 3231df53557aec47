import pytest

from benchmarks.present.units import size
from benchmarks.studies.scaling import theory

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("n", "memory", "cost"),
    [
        (512, MIB, 1),
        (2048, 16 * MIB, 16),
        (8192, 256 * MIB, 256),
        (32768, 4 * GIB, 4096),
        (131072, 64 * GIB, 65536),
    ],
)
def test_textbook_values(n, memory, cost):
    assert theory.score_matrices_bytes(n) == memory
    assert theory.relative_cost(n) == cost
    assert n in theory.SEQ_LENS


def test_the_theory_line_counts_every_head_at_the_width_of_the_dtype():
    assert theory.score_matrices_bytes(512, heads=8, item_bytes=4) == 16 * MIB


def test_what_is_counted_is_said():
    assert theory.COUNTS == "two n x n fp16 matrices, the scores and the weights, for one head"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (1000, "0.977 KiB"), (MIB, "1 MiB"), (1.5 * GIB, "1.5 GiB"), (64 * GIB, "64 GiB")],
)
def test_sizes_are_readable(value, shown):
    assert size(value) == shown
