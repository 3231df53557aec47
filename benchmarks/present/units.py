"""Numbers as a person reads them."""

import math


def milliseconds(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1e3:.1f} s"
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} ms"


def size(value: float) -> str:
    """Bytes in binary units, three significant figures."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def or_blank(value: float | None, form: str) -> str:
    """The number in a format such as "{:.2f}x"; empty where it is missing."""
    return "" if value is None or math.isnan(value) else form.format(value)
