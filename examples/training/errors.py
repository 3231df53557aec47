"""What can go wrong before anything is trained, and what is said about it."""

from __future__ import annotations

import importlib


class Refused(Exception):
    """A run that cannot go on; the message says why in one line."""


def need(module: str, what: str):
    """An optional dependency; Refused if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise Refused(f"{what} needs {package}: pip install {package} ({error})") from error
