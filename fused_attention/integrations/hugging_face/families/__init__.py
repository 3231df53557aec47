"""The families of models of Hugging Face's transformers that ours can load, one a file."""

from .bert import BERT
from .family import Family
from .gpt2 import GPT2
from .llama import LLAMA
from .vit import VIT

__all__ = ["BERT", "GPT2", "LLAMA", "VIT", "Family"]
