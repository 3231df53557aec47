"""A mutation: one change that breaks the code, and the test that must fail."""

from __future__ import annotations

from typing import NamedTuple

OPS = "fused_attention/ops/"


class Mutation(NamedTuple):
    """``old`` occurs once in ``file``; ``test`` is an id below tests/, where * matches any text."""

    name: str
    file: str
    old: str
    new: str
    test: str
    interpreted: bool = True


def table(file: str, test: str, rows: tuple) -> tuple[Mutation, ...]:
    """Mutations of rows (name, text for {} in ``file``, old, new, text for {} in ``test``).

    Their tests run without TRITON_INTERPRET.
    """
    return tuple(
        torch(name, file.format(part), old, new, test.format(found))
        for name, part, old, new, found in rows
    )


def torch(*fields: str) -> Mutation:
    """A mutation whose test runs without TRITON_INTERPRET."""
    return Mutation(*fields, interpreted=False)


def non_finite(case: str) -> str:
    """The test of a value that is not finite, in one op."""
    return f"ops/test_non_finite.py::test_non_finite_values_propagate_as_in_the_reference[{case}]"
