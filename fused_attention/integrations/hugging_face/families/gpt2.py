"""GPT-2: GPT2LMHeadModel and GPT2Model."""

from __future__ import annotations

from ..hf_config import Options
from .family import Family
from .shared import ACTIVATIONS, DECODER, LEARNED, layer_names


def _gpt2(options: Options, parts: dict[str, bool]) -> dict:
    options.fixed(
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        reorder_and_upcast_attn=False,
        add_cross_attention=False,
    )
    return {
        "dim": options["n_embd"],
        "num_layers": options["n_layer"],
        "num_heads": options["n_head"],
        "hidden_dim": options.get("n_inner", None),
        "vocab_size": options["vocab_size"],
        "max_seq_len": options["n_positions"],
        "norm_eps": options.get("layer_norm_epsilon", 1e-5),
        "activation": options.choice("activation_function", "gelu_new", ACTIVATIONS),
        "tied": options.get("tie_word_embeddings", True),
        "dropout": options.get("resid_pdrop", 0.1),
        "embedding_dropout": options.get("embd_pdrop", 0.1),
        "attention_dropout": options.get("attn_pdrop", 0.1),
    }


GPT2 = Family(
    "GPT",
    "transformer.",
    _gpt2,
    {
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
    {**LEARNED, **DECODER},
    copies={"lm_head.weight": "transformer.wte.weight"},
    buffers=r"\.attn\.(masked_)?bias$",
    transposed=r"\.c_\w+\.weight$",
)
