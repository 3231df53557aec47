"""Errors with a message for the user."""

from __future__ import annotations

import importlib


class Refused(Exception):
    """A run that cannot go on; the message says why in one line."""


def optional_import(module: str, what: str):
    """Import a module that ``what`` needs; raises Refused if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise Refused(f"{what} needs {package}: pip install {package} ({error})") from error
