"""Transformers in little code: five models of one configuration and one block."""

from ..integrations.hugging_face import load
from .bert import BERT
from .config import Config
from .gpt import GPT
from .seq2seq import Seq2Seq
from .transformer_xl import TransformerXL
from .vit import ViT

__all__ = ["BERT", "GPT", "Config", "Seq2Seq", "TransformerXL", "ViT", "load"]
