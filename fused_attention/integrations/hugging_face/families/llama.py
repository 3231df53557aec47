"""Llama and Mistral: LlamaForCausalLM, MistralForCausalLM."""

from __future__ import annotations

from ....modules.mlp import GATED
from ....ops.rotary.scaling import RotaryScaling
from ....variants.sliding_window import MAX_WINDOW
from ..hf_config import HFConfig
from .family import Family
from .shared import PRENORM, layer_names

_ACTIVATIONS = {"silu": "swiglu", "gelu": "geglu", "gelu_pytorch_tanh": "geglu_tanh"}
_ROPE_TYPES = {  # each with the fields of `RotaryScaling`, and what theirs are called
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_length": "original_max_position_embeddings",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
    },
}


def _read_config(config: HFConfig, present: dict[str, bool]) -> dict:
    bias = config.get("attention_bias", False)
    config.require(mlp_bias=bias)
    rope = config.get("rope_parameters", None) or config.get("rope_scaling", None) or {}
    window = config.get("sliding_window", None)
    if window is not None and not 1 <= window <= MAX_WINDOW + 1:
        raise ValueError(
            f"hf_config: sliding_window: expected None, or 1 to 2**30 + 1 tokens, got {window}"
        )
    return {
        "dim": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "head_dim": config.get("head_dim", None),
        "num_kv_heads": config.get("num_key_value_heads", None),
        "hidden_dim": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "max_seq_len": config["max_position_embeddings"],
        "position": "rotary",
        "norm": "rms",
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "activation": config.choice("hidden_act", "silu", _ACTIVATIONS),
        "bias": bias,
        "tied": config.get("tie_word_embeddings", False),
        "attention_dropout": config.get("attention_dropout", 0.0),
        "rotary_base": rope.get("rope_theta", config.get("rope_theta", 10000.0)),
        "rotary_scaling": _rotary_scaling(rope),
        "window": None if window is None else window - 1,  # theirs counts the query's own token
    }


def _rotary_scaling(rope: dict) -> RotaryScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    given = set(rope) - {"rope_type", "type", "rope_theta"}
    fields = _ROPE_TYPES.get(kind, {})
    if kind not in _ROPE_TYPES or given != set(fields.values()):
        raise NotImplementedError(
            f"hf_config: rope_type {kind!r} with {', '.join(sorted(given)) or 'no more options'} "
            f"is not supported, only {', '.join(_ROPE_TYPES)} with their own are"
        )
    return (
        RotaryScaling(**{ours: rope[theirs] for ours, theirs in fields.items()}) if fields else None
    )


LLAMA = Family(
    model_types=("llama", "mistral"),
    prefix="model.",
    read_config=_read_config,
    names={
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
    supported={
        **PRENORM,
        "position": ("rotary",),
        "norm": ("rms",),
        "activation": tuple(GATED),
        "scale_embeddings": (False,),
    },
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    buffers=r"rotary_emb\.inv_freq$",
)
