"""How a family of models is named and configured in Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..hf_config import Options


@dataclass(frozen=True, eq=False)
class Family:
    model: str  # class of ours
    prefix: str  # of all keys but those of heads
    read: Callable[[Options, dict], dict]  # with the parts there are, to the fields of a Config
    names: dict[str, tuple[str, ...]]
    needs: dict[str, tuple]  # what the fields of a Config can be
    copies: dict[str, str] = field(default_factory=dict)  # of keys, where tied
    parts: dict[str, str] = field(default_factory=dict)  # ours that may lack, prefixes of keys
    old_names: tuple[tuple[str, str], ...] = ()  # patterns
    buffers: str = "(?!)"  # pattern of keys that hold constants
    transposed: str = "(?!)"  # of weights that are (in, out)
    leading: dict[str, int] = field(default_factory=dict)  # dimensions of size 1 in front
