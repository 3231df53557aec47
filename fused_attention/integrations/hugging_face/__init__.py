"""Hugging Face's transformers, by the names and formats of its files; it is never imported."""

from . import families
from .load import load
from .pretrained import Pretrained

__all__ = ["Pretrained", "families", "load"]
