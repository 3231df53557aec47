"""The names of the checks that Triton must run, and which of them a variant needs."""

from __future__ import annotations

from ..variants.base import VariantType
from ..variants.hooks import KERNEL_HOOKS

ATTENTION = "attention on the kernels"


def kernel_checks(kind: VariantType) -> list[str]:
    hooks = [hook for hook in KERNEL_HOOKS if getattr(kind, hook) is not None]
    return [*hooks, ATTENTION] if hooks else []  # a sink has none
