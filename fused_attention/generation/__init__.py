"""Generation from causal language models, token by token, on a paged cache."""

from .causal_lm import CausalLM
from .generate import generate

__all__ = ["CausalLM", "generate"]
