"""Llama and Mistral: LlamaForCausalLM, MistralForCausalLM."""

from __future__ import annotations

from ....modules.mlp import GATED
from ....ops.rotary_scaling import RotaryScaling
from ..hf_config import Options
from .family import Family
from .shared import DECODER, layer_names

GATES = {"silu": "swiglu", "gelu": "geglu", "gelu_pytorch_tanh": "geglu_tanh"}
_SCALED = {  # rope_type: the fields there are, by the names of ours
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_length": "original_max_position_embeddings",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
    },
}


def _llama(options: Options, parts: dict[str, bool]) -> dict:
    bias = options.get("attention_bias", False)
    options.fixed(mlp_bias=bias)
    rope = options.get("rope_parameters", None) or options.get("rope_scaling", None) or {}
    window = options.get("sliding_window", None)
    return {
        "dim": options["hidden_size"],
        "num_layers": options["num_hidden_layers"],
        "num_heads": options["num_attention_heads"],
        "head_dim": options.get("head_dim", None),
        "num_kv_heads": options.get("num_key_value_heads", None),
        "hidden_dim": options["intermediate_size"],
        "vocab_size": options["vocab_size"],
        "max_seq_len": options["max_position_embeddings"],
        "position": "rotary",
        "norm": "rms",
        "norm_eps": options.get("rms_norm_eps", 1e-6),
        "activation": options.choice("hidden_act", "silu", GATES),
        "bias": bias,
        "tied": options.get("tie_word_embeddings", False),
        "attention_dropout": options.get("attention_dropout", 0.0),
        "rotary_base": rope.get("rope_theta", options.get("rope_theta", 10000.0)),
        "rotary_scaling": _scaling(rope),
        "window": None if window is None else window - 1,  # theirs counts the token itself
    }


def _scaling(rope: dict) -> RotaryScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    given = set(rope) - {"rope_type", "type", "rope_theta"}
    fields = _SCALED.get(kind, {})
    if kind not in _SCALED or given != set(fields.values()):
        raise NotImplementedError(
            f"hf_config: rope_type {kind!r} with {', '.join(sorted(given)) or 'no more options'} "
            f"is not supported, only {', '.join(_SCALED)} with their own are"
        )
    return (
        RotaryScaling(**{ours: rope[theirs] for ours, theirs in fields.items()}) if fields else None
    )


LLAMA = Family(
    "GPT",
    "model.",
    _llama,
    {
        "embedding": ("model.embed_tokens",),
        **layer_names(
            {
                "attention_norm": "input_layernorm",
                "attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
                "attention.out": "self_attn.o_proj",
                "mlp_norm": "post_attention_layernorm",
                "mlp.up": "mlp.gate_proj mlp.up_proj",
                "mlp.down": "mlp.down_proj",
            },
            "model.layers",
        ),
        "stack.norm": ("model.norm",),
        "output": ("lm_head",),
    },
    {
        **DECODER,
        "position": ("rotary",),
        "norm": ("rms",),
        "activation": tuple(GATED),
        "scale_embeddings": (False,),
    },
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    buffers=r"rotary_emb\.inv_freq$",
)
