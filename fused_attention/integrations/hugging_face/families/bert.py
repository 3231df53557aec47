"""BERT: BertModel and BertForMaskedLM."""

from __future__ import annotations

from ..hf_config import HFConfig
from .family import Family
from .shared import LEARNED_POSITIONS, encoder_fields, layer_names


def _read_config(config: HFConfig, present: dict[str, bool]) -> dict:
    if present["mlm_head"]:
        config.require(hidden_act="gelu")  # our head has no other
    config.require(is_decoder=False, add_cross_attention=False, position_embedding_type="absolute")
    return {
        **encoder_fields(config),
        "vocab_size": config["vocab_size"],
        "max_seq_len": config["max_position_embeddings"],
        "num_token_types": config.get("type_vocab_size", 2),
        "prenorm": False,
        "embedding_norm": True,
        # Without the head there is no output projection.
        "tied": not present["mlm_head"] or config.get("tie_word_embeddings", True),
        "dropout": config.get("hidden_dropout_prob", 0.1),
        "attention_dropout": config.get("attention_probs_dropout_prob", 0.1),
    }


BERT = Family(
    model_types=("bert",),
    prefix="bert.",
    read_config=_read_config,
    names={
        "embedding": ("bert.embeddings.word_embeddings",),
        "token_types": ("bert.embeddings.token_type_embeddings",),
        "stack.positions": ("bert.embeddings.position_embeddings",),
        "stack.embedding_norm": ("bert.embeddings.LayerNorm",),
        **layer_names(
            {
                "attention.qkv": "attention.self.query attention.self.key attention.self.value",
                "attention.out": "attention.output.dense",
                "attention_norm": "attention.output.LayerNorm",
                "mlp.up": "intermediate.dense",
                "mlp.down": "output.dense",
                "mlp_norm": "output.LayerNorm",
            },
            "bert.encoder.layer",
        ),
        "pooler": ("bert.pooler.dense",),
        "mlm_head": ("cls.predictions",),
        "mlm_head.dense": ("cls.predictions.transform.dense",),
        "mlm_head.norm": ("cls.predictions.transform.LayerNorm",),
        "output": ("cls.predictions.decoder",),
    },
    supported={**LEARNED_POSITIONS, "prenorm": (False,), "embedding_norm": (True,)},
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    optional={"pooler": "bert.pooler.", "mlm_head": "cls.predictions."},
    old_names=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    buffers=r"embeddings\.(position_ids|token_type_ids)$",
)
