import pytest

from benchmarks.present import figures


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.1, 0.9], [0.1, 0.9]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.5, 0.52, 0.9], [0.46, 0.56, 0.9]),
        ([0.5, 0.5, 0.56], [0.42, 0.52, 0.62]),
    ],
)
def test_labels_are_spread_no_more_than_needed(heights, expected):
    assert figures.spread(heights, 0.1) == pytest.approx(expected)
