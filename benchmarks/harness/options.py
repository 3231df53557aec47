"""What the commands of all studies share: option types, and the checks of their values.

A check turns what was typed into plain values, or raises `BadOption`, before anything is written.
"""

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from .progress import console
from .runner import find_machine
from .session import Session

MAX_SIZE = 2**24
DTYPES = ("float16", "bfloat16", "float32", "float64")
DTYPE_ALIASES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}


class BadOption(Exception):
    """An option with a value that cannot be used; names the option and says what was expected."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}")


def option(text: str):
    return typer.Option(help=text)


Device = Annotated[str, option("auto, cpu or cuda.")]
Dtype = Annotated[
    str | None,
    option("float16, bfloat16, float32 or float64; if left out, float32 on CPU, bfloat16 on CUDA."),
]
Repeats = Annotated[int, option("Timed rounds of a point; 0 takes 3 to 100 as time allows.")]
Seed = Annotated[int, option("Seed of the inputs and of the order of measurement.")]
Timeout = Annotated[float, option("Seconds after which a point is given up.")]
Out = Annotated[
    Path | None,
    option(
        "Folder for the results, from which an interrupted run resumes; if left out, "
        "benchmarks/results/DEVICE/COMMAND."
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Set earlier results in the folder aside and start over.")
]


def given(check: Callable, value):
    """The checked value; None for an option that was left out."""
    return None if value is None else check(value)


def device(text: str) -> str:
    one_of("--device", text, ("auto", "cpu", "cuda"))
    found = torch.cuda.is_available()
    if text == "cuda" and not found:
        raise BadOption("--device", "cuda was asked for, but torch finds no CUDA device")
    return text if text != "auto" else "cuda" if found else "cpu"


def dtype(text: str) -> str:
    return one_of("--dtype", DTYPE_ALIASES.get(text, text), DTYPES)


def repeats(value: int) -> int:
    return at_least("--repeats", value, 0)


def seed(value: int) -> int:
    if not 0 <= value < 2**63:
        raise BadOption("--seed", f"expected 0 <= seed < 2**63, got {value}")
    return value


def seq_lens(text: str) -> tuple[int, ...]:
    return sizes("--seq-lens", text)


def sizes(name: str, text: str) -> tuple[int, ...]:
    """`256,512` or a range of doublings `256..8192`, or both, joined by commas."""
    found = set()
    for part in text.split(","):
        first, dots, last = (word.strip() for word in part.partition(".."))
        bounds = [first, last] if dots else [first]
        if not all(word.isascii() and word.isdigit() for word in bounds):
            raise BadOption(name, f"expected sizes such as 256,512 or 256..8192, got '{part}'")
        start, stop = int(first), int(bounds[-1])
        if not 1 <= start <= stop <= MAX_SIZE:
            raise BadOption(name, f"expected 1 <= size <= {MAX_SIZE}, rising, got '{part}'")
        while start <= stop:
            found.add(start)
            start *= 2
    return tuple(sorted(found))


def counts(name: str, text: str) -> tuple[int, ...]:
    """Positive numbers in the order given."""
    items = listed(name, text)
    for item in items:
        if not (item.isascii() and item.isdigit() and 1 <= int(item) <= MAX_SIZE):
            raise BadOption(name, f"expected numbers from 1 to {MAX_SIZE}, got '{item}'")
    return tuple(map(int, items))


def found_by(find: Callable[[str], object], name: str, text: str) -> tuple[str, ...]:
    """The items of a list, each of which `find` knows."""
    items = listed(name, text)
    for item in items:
        try:
            find(item)
        except ValueError as error:
            raise BadOption(name, str(error)) from None
    return items


def choices(name: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The items of a list, each of which is in `known`."""
    return tuple(one_of(name, item, known) for item in listed(name, text))


def listed(name: str, text: str) -> tuple[str, ...]:
    items = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(items):
        raise BadOption(name, f"expected a comma-separated list, got '{text}'")
    return items


def one_of(name: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise BadOption(name, f"expected one of {', '.join(known)}, got '{text}'")
    return text


def at_least(name: str, value: int | float, minimum: int | float) -> int | float:
    if not minimum <= value < float("inf"):
        raise BadOption(name, f"expected at least {minimum}, got {value}")
    return value


def out_dir(path: Path) -> Path:
    """Makes the folder and checks that it can be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise BadOption("--out", f"cannot write to {path}: {error.strerror}") from None


def session(
    device: str, command: str, out: Path | None, timeout: float, fresh: bool, **settings
) -> Session:
    """A session of the command on this machine; `settings` are further fields of `Session`."""
    at_least("--timeout", timeout, 1)
    if out is not None:
        out_dir(out)
    machine = find_machine(device)
    slug = re.sub(r"[^a-z0-9]+", "-", machine.facts["device_name"].lower()).strip("-")
    folder = out_dir(out or Path("benchmarks") / "results" / slug / command)
    return Session(folder, machine, sys.argv[1:], console(), timeout, fresh, **settings)
