"""One place where the code is broken, and the test that must notice."""

from __future__ import annotations

from typing import NamedTuple

OPS = "fused_attention/ops/"


class Mutation(NamedTuple):
    """``old`` occurs once in ``file``; ``test`` is below tests/, * in it standing for anything."""

    name: str
    file: str
    old: str
    new: str
    test: str
    interpreted: bool = True


def table(file: str, test: str, rows: tuple) -> tuple[Mutation, ...]:
    """Rows of (name, what is in place of {} in ``file``, old, new, the same in ``test``).

    Their tests need no interpreter.
    """
    return tuple(
        torch(name, file.format(part), old, new, test.format(found))
        for name, part, old, new, found in rows
    )


def torch(*fields: str) -> Mutation:
    """A mutation whose test needs no interpreter."""
    return Mutation(*fields, interpreted=False)
