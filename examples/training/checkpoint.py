"""One file that holds a run, and that no interruption can leave half written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from .errors import Refused

NAME = "checkpoint.pt"


def save(path: Path, content: dict) -> None:
    """Replaces the file at once: whoever reads it finds the old content or the new."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)  # the new name survives a power cut too
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> dict | None:
    """What was saved, on the CPU; None if nothing was.  Refused if it cannot be read."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, and torch's own
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise Refused(
            f"{path} is not a readable checkpoint ({reason}); it was left as it is: move it away, "
            "or choose another --out"
        ) from error


def check(path: Path, found: dict, wanted: dict) -> None:
    """Refused, naming every difference, if a checkpoint is of another configuration."""
    differences = [
        f"{name} is {found.get(name)!r} there and {wanted.get(name)!r} here"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise Refused(
            f"{path} is of another configuration: {', '.join(differences)}; it was left as it is: "
            "give the same options, or choose another --out"
        )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder against a second run; the system lets go of it however the process ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"--out: {folder} is in use by another run") from None
        yield
