"""Names on the command line: entries of a table, or a user's own as `module:function`."""

import importlib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """`table[name]`, or the object that `module:function` names; ValueError if there is none."""
    if name in table:
        return table[name]
    module, colon, attribute = name.partition(":")
    known = f"known: {', '.join(table)}, or your own as module:function"
    if not colon or module in table:
        raise ValueError(f"unknown {kind} '{name}'; {known}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot load {kind} '{name}': {error}; {known}") from error
