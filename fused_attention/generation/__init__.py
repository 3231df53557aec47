"""Text from a language model, token by token, on a paged cache.

A model has a ``config``, ``embedding``, ``stack.positions``, ``hidden(ids, cache=, step=)`` and
``logits(hidden)``, as `fused_attention.models.GPT` does.
"""

from .generate import generate

__all__ = ["generate"]
