"""The transformer and its descendants, thin: one configuration, one block, five models."""

from ..integrations.hugging_face import load
from .bert import BERT
from .config import Config
from .gpt import GPT
from .seq2seq import Seq2Seq
from .transformer_xl import TransformerXL
from .vit import ViT

__all__ = ["BERT", "GPT", "Config", "Seq2Seq", "TransformerXL", "ViT", "load"]
