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


def torch(*fields: str) -> Mutation:
    """A mutation whose test needs no interpreter."""
    return Mutation(*fields, interpreted=False)
