"""results.jsonl: one row for each measurement; rows are appended and never changed."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from .isolate import CannotRun
from .point import STATUSES, Measurement

NAME = "results.jsonl"
REQUIRED = {"key": str, "config": str, "status": str}
MEASURED = ("time_ms", "peak_memory_bytes")
FINAL = ("ok", "unsupported", "oom")


class Store:
    """The rows of one folder, all of one kind of point.

    A damaged file is renamed when it is opened, and its good rows are kept.
    """

    def __init__(self, folder: Path, kind: type[Measurement], fresh: bool = False) -> None:
        axes = {field.name: field.type for field in fields(kind) if field.name in kind.axes}
        self.required = REQUIRED | axes
        self.path = folder / NAME
        self.notices: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(folder / f".{NAME}.lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise CannotRun(f"--out: {folder} is in use by another run") from None
        if fresh and self.path.exists():
            aside = _free_name(self.path, "old")
            self.path.rename(aside)
            self.notices.append(f"earlier results set aside as {aside.name}")
        self.rows = self._load()

    def close(self) -> None:
        self._lock.close()

    def append(self, row: dict) -> None:
        """Writes the row whole, or not at all where the disk is full (OSError)."""
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        self.rows.append(row)

    def finished(self, timeout: float) -> set[str]:
        """Keys that need no new run. Errors are retried, and timeouts if the limit has grown."""
        latest = {row["key"]: row for row in self.rows}
        return {
            key
            for key, row in latest.items()
            if row["status"] in FINAL
            or (row["status"] == "timeout" and row.get("timeout_s", 0) >= timeout)
        }

    def of_config(self, config: str) -> list[dict]:
        """The latest row of every point that is comparable with `config`."""
        return list({row["key"]: row for row in self.rows if row["config"] == config}.values())

    def _load(self) -> list[dict]:
        if not self.path.exists():
            return []
        text = self.path.read_bytes().decode(errors="replace")
        parsed = [_parse(line, self.required) for line in text.splitlines()]
        rows = [row for row in parsed if row is not None]
        if len(rows) < len(parsed) or (text and not text.endswith("\n")):
            self._set_aside(rows, bad=len(parsed) - len(rows))
        return rows

    def _set_aside(self, rows: list[dict], bad: int) -> None:
        aside = _free_name(self.path, "corrupt")
        kept = self.path.with_name(f".{NAME}.kept")
        kept.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        os.link(self.path, aside)
        os.replace(kept, self.path)
        self.notices.append(
            f"{NAME} was damaged: set aside as {aside.name}, {len(rows)} rows kept, {bad} left out"
        )


def _free_name(path: Path, word: str) -> Path:
    return next(name for name in _numbered(path, word) if not name.exists())


def _numbered(path: Path, word: str) -> Iterator[Path]:
    number = 1
    while True:
        yield path.with_name(f"{path.name}.{word}-{number}")
        number += 1


def _parse(line: str, required: dict[str, type]) -> dict | None:
    with contextlib.suppress(ValueError):
        row = json.loads(line)
        if (
            isinstance(row, dict)
            and all(isinstance(row.get(name), kind) for name, kind in required.items())
            and row["status"] in STATUSES
            and all(isinstance(row.get(n), (int, float)) for n in MEASURED if row["status"] == "ok")
        ):
            return row
    return None
