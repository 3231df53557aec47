"""Checks of what a study draws and writes: readable pictures, pages that load nothing."""

from html.parser import HTMLParser

import matplotlib.pyplot as plt
from matplotlib.text import Annotation


def _texts(figure):
    found = [*figure.texts]
    for axes in figure.axes:
        found += [t for t in axes.texts if t.get_text()]
        found += [axes.title, axes.xaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    return [text for text in found if text.get_text().strip() and text.get_visible()]


def _extents(figure):
    renderer = figure.canvas.get_renderer()
    for text in _texts(figure):
        box = text
        if isinstance(text, Annotation):
            text.update_positions(renderer)
            box = super(Annotation, text)
        yield text.get_text(), box.get_window_extent(renderer)


def assert_readable(figure, at_least: int) -> None:
    """No text overlaps another or leaves the picture, which has more than `at_least` texts."""
    figure.canvas.draw()
    boxes = list(_extents(figure))
    assert len(boxes) > at_least
    for i, (text, box) in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
        for other, other_box in boxes[i + 1 :]:
            overlap = box.padded(-1).overlaps(other_box.padded(-1))
            assert not overlap, f"{text!r} and {other!r}"
    plt.close(figure)


class _Loads(HTMLParser):
    """Collects whatever an HTML page would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "poster", "action", "style"):
                self.found.append((tag, name, value))


def assert_loads_nothing(page: str) -> None:
    """The page holds its icon and two pictures itself, and fetches nothing."""
    loads = _Loads()
    loads.feed(page)
    assert len(loads.found) == 3
    assert all(value.startswith("data:") for _, _, value in loads.found)
