"""How a family of models is named and configured in Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..hf_config import HFConfig


@dataclass(frozen=True, eq=False)
class Family:
    """How the keys and configurations of a family translate to ours.

    Names are of modules, or of parameters outside any, with {} for the number of a layer.

    Args:
        model_types: of the configurations.
        prefix: of all keys but those of heads, where the model has a head.
        read_config: from a configuration, and which optional modules the weights have, to the
            fields of our `Config`.
        names: ours to theirs; if theirs are several, ours has their rows one after the other.
        supported: values that the fields of our `Config` may have for the family to express them.
        copies: of tied weights: the key of the copy to the key of the original.
        optional: our modules that a model may lack, to the prefix of their keys.
        old_names: (pattern, replacement) for the keys of older versions of transformers.
        buffers: pattern of keys that hold constants, which are ignored.
        transposed: pattern of keys whose weights are (in, out).
        leading_dims: our parameters whose tensors have leading dimensions of size 1, to how many.
    """

    model_types: tuple[str, ...]
    prefix: str
    read_config: Callable[[HFConfig, dict[str, bool]], dict]
    names: dict[str, tuple[str, ...]]
    supported: dict[str, tuple]
    copies: dict[str, str] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)
    old_names: tuple[tuple[str, str], ...] = ()
    buffers: str = "(?!)"  # matches nothing
    transposed: str = "(?!)"
    leading_dims: dict[str, int] = field(default_factory=dict)
