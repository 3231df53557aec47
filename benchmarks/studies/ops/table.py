"""The ops that can be measured, by name."""

from fused_attention.testing import CASES, OpCase

from ...harness.lookup import lookup

OPS: dict[str, OpCase] = {case.name: case for case in CASES}


def find(name: str) -> OpCase:
    """A case by name, or the user's own as module:name; ValueError if there is none."""
    return lookup("op", name, OPS)
