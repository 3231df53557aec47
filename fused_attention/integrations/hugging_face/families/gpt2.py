"""GPT-2: GPT2LMHeadModel and GPT2Model."""

from __future__ import annotations

from ..hf_config import HFConfig
from .family import Family
from .shared import ACTIVATIONS, LEARNED_POSITIONS, PRENORM, layer_names


def _read_config(config: HFConfig, present: dict[str, bool]) -> dict:
    config.require(
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        reorder_and_upcast_attn=False,
        add_cross_attention=False,
    )
    return {
        "dim": config["n_embd"],
        "num_layers": config["n_layer"],
        "num_heads": config["n_head"],
        "hidden_dim": config.get("n_inner", None),
        "vocab_size": config["vocab_size"],
        "max_seq_len": config["n_positions"],
        "norm_eps": config.get("layer_norm_epsilon", 1e-5),
        "activation": config.choice("activation_function", "gelu_new", ACTIVATIONS),
        "tied": config.get("tie_word_embeddings", True),
        "dropout": config.get("resid_pdrop", 0.1),
        "embedding_dropout": config.get("embd_pdrop", 0.1),
        "attention_dropout": config.get("attn_pdrop", 0.1),
    }


GPT2 = Family(
    model_types=("gpt2",),
    prefix="transformer.",
    read_config=_read_config,
    names={
        "embedding": ("transformer.wte",),
        "stack.positions": ("transformer.wpe",),
        **layer_names(
            {
                "attention_norm": "ln_1",
                "attention.qkv": "attn.c_attn",
                "attention.out": "attn.c_proj",
                "mlp_norm": "ln_2",
                "mlp.up": "mlp.c_fc",
                "mlp.down": "mlp.c_proj",
            },
            "transformer.h",
        ),
        "stack.norm": ("transformer.ln_f",),
        "output": ("lm_head",),
    },
    supported={**LEARNED_POSITIONS, **PRENORM},
    copies={"lm_head.weight": "transformer.wte.weight"},
    buffers=r"\.attn\.(masked_)?bias$",
    transposed=r"\.c_\w+\.weight$",
)
