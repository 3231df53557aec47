"""Names on the command line: entries of a table, or a user's own as `module:function`."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """`table[name]`, or the object that `module:function` names; ValueError if there is none.

    Modules are looked for in the working directory first, as `python -m` does, so that the
    installed command finds them too.
    """
    if name in table:
        return table[name]
    module, colon, attribute = name.partition(":")
    known = f"known: {', '.join(table)}, or your own as module:function"
    if not colon or module in table:
        raise ValueError(f"unknown {kind} '{name}'; {known}")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot load {kind} '{name}': {error}; {known}") from error
