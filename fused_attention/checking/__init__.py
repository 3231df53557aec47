"""`check_variant`: a user's variant compared with itself: kernel hooks, torch twins, autograd."""

from .check import check_variant
from .findings import Report

__all__ = ["Report", "check_variant"]
