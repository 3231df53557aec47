"""The file that holds a run, written atomically."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from .errors import Refused

NAME = "checkpoint.pt"


def save(path: Path, content: dict) -> None:
    """Replace the file atomically: a reader finds the old content or the new, never a mixture."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)  # so that the rename survives a power cut
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path) -> dict | None:
    """The saved content, on the CPU; None without a file.  Raises Refused if it is unreadable."""
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
    """Raise Refused, naming every difference, for a checkpoint of another configuration."""
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
def lock(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder; the system unlocks it however the process ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"--out: {folder} is in use by another run") from None
        yield
