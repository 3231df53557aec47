"""The families of models of Hugging Face's transformers that ours can load, one a file."""

from ..hf_config import Options
from .bert import BERT
from .family import Family
from .gpt2 import GPT2
from .llama import LLAMA
from .vit import VIT

__all__ = ["FAMILIES", "Family", "family_of"]

FAMILIES = {"gpt2": GPT2, "llama": LLAMA, "mistral": LLAMA, "bert": BERT, "vit": VIT}


def family_of(options: Options) -> Family:
    kind = options["model_type"]
    if kind not in FAMILIES:
        raise NotImplementedError(
            f"hf_config: model_type {kind!r} is not supported, only {', '.join(FAMILIES)} are"
        )
    return FAMILIES[kind]
