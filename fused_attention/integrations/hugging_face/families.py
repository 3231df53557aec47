"""How Hugging Face's transformers names and configures models that ours can be.

Names are those of modules, with {} for the number of a layer; a module of ours that is several of
theirs has their rows one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ...modules.mlp import GATED, PLAIN
from ...ops.rotary_scaling import RotaryScaling
from .hf_config import Options


@dataclass(frozen=True, eq=False)
class Family:
    model: str  # class of ours
    prefix: str  # of all keys but those of heads
    read: Callable[[Options, dict], dict]  # with the parts there are, to the fields of a Config
    names: dict[str, tuple[str, ...]]
    needs: dict[str, tuple]  # what the fields of a Config can be
    copies: dict[str, str] = field(default_factory=dict)  # of keys, where tied
    parts: dict[str, str] = field(default_factory=dict)  # ours that may lack, prefixes of keys
    old_names: tuple[tuple[str, str], ...] = ()  # patterns
    buffers: str = "(?!)"  # pattern of keys that hold constants
    transposed: str = "(?!)"  # of weights that are (in, out)
    leading: dict[str, int] = field(default_factory=dict)  # dimensions of size 1 in front


_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_GATED = {"silu": "swiglu", "gelu": "geglu", "gelu_pytorch_tanh": "geglu_tanh"}


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
        "activation": options.choice("activation_function", "gelu_new", _ACTIVATIONS),
        "tied": options.get("tie_word_embeddings", True),
        "dropout": options.get("resid_pdrop", 0.1),
        "embedding_dropout": options.get("embd_pdrop", 0.1),
        "attention_dropout": options.get("attn_pdrop", 0.1),
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
        "activation": options.choice("hidden_act", "silu", _GATED),
        "bias": bias,
        "tied": options.get("tie_word_embeddings", False),
        "attention_dropout": options.get("attention_dropout", 0.0),
        "rotary_base": rope.get("rope_theta", options.get("rope_theta", 10000.0)),
        "rotary_scaling": _scaling(rope),
        "window": None if window is None else window - 1,  # theirs counts the token itself
    }


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


def _encoder(options: Options) -> dict:
    return {
        "dim": options["hidden_size"],
        "num_layers": options["num_hidden_layers"],
        "num_heads": options["num_attention_heads"],
        "hidden_dim": options["intermediate_size"],
        "norm_eps": options.get("layer_norm_eps", 1e-12),
        "activation": options.choice("hidden_act", "gelu", _ACTIVATIONS),
    }


def _bert(options: Options, parts: dict[str, bool]) -> dict:
    if parts["mlm_head"]:
        options.fixed(hidden_act="gelu")  # our head has no other
    options.fixed(is_decoder=False, add_cross_attention=False, position_embedding_type="absolute")
    return {
        **_encoder(options),
        "vocab_size": options["vocab_size"],
        "max_seq_len": options["max_position_embeddings"],
        "num_token_types": options.get("type_vocab_size", 2),
        "prenorm": False,
        "embedding_norm": True,
        # Without the head there is no output projection.
        "tied": not parts["mlm_head"] or options.get("tie_word_embeddings", True),
        "dropout": options.get("hidden_dropout_prob", 0.1),
        "attention_dropout": options.get("attention_probs_dropout_prob", 0.1),
    }


def _vit(options: Options, parts: dict[str, bool]) -> dict:
    options.fixed(qkv_bias=True)
    return {
        **_encoder(options),
        "image_size": options.get("image_size", 224),
        "patch_size": options.get("patch_size", 16),
        "channels": options.get("num_channels", 3),
        "num_classes": len(options.get("id2label", "01")),
        "dropout": options.get("hidden_dropout_prob", 0.0),
        "attention_dropout": options.get("attention_probs_dropout_prob", 0.0),
    }


def _layers(ours: dict[str, str], theirs: str) -> dict[str, tuple[str, ...]]:
    return {
        f"stack.blocks.{{}}.{name}": tuple(f"{theirs}.{{}}.{part}" for part in parts.split())
        for name, parts in ours.items()
    }


_LEARNED = {
    "position": ("learned",),
    "norm": ("layer",),
    "activation": tuple(PLAIN),
    "bias": (True,),
    "scale_embeddings": (False,),
    "window": (None,),
    "num_heads / num_kv_heads": (1,),
    "num_heads * head_dim / dim": (1,),
}
_DECODER = {"prenorm": (True,), "embedding_norm": (False,)}

_GPT2 = Family(
    "GPT",
    "transformer.",
    _gpt2,
    {
        "embedding": ("transformer.wte",),
        "stack.positions": ("transformer.wpe",),
        **_layers(
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
    {**_LEARNED, **_DECODER},
    copies={"lm_head.weight": "transformer.wte.weight"},
    buffers=r"\.attn\.(masked_)?bias$",
    transposed=r"\.c_\w+\.weight$",
)
_LLAMA = Family(
    "GPT",
    "model.",
    _llama,
    {
        "embedding": ("model.embed_tokens",),
        **_layers(
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
        **_DECODER,
        "position": ("rotary",),
        "norm": ("rms",),
        "activation": tuple(GATED),
        "scale_embeddings": (False,),
    },
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    buffers=r"rotary_emb\.inv_freq$",
)
_BERT = Family(
    "BERT",
    "bert.",
    _bert,
    {
        "embedding": ("bert.embeddings.word_embeddings",),
        "token_types": ("bert.embeddings.token_type_embeddings",),
        "stack.positions": ("bert.embeddings.position_embeddings",),
        "stack.embedding_norm": ("bert.embeddings.LayerNorm",),
        **_layers(
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
    {**_LEARNED, "prenorm": (False,), "embedding_norm": (True,)},
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    parts={"pooler": "bert.pooler.", "mlm_head": "cls.predictions."},
    old_names=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
    buffers=r"embeddings\.(position_ids|token_type_ids)$",
)
_VIT = Family(
    "ViT",
    "vit.",
    _vit,
    {
        "cls": ("vit.embeddings.cls_token",),
        "patches": ("vit.embeddings.patch_embeddings.projection",),
        "stack.positions.weight": ("vit.embeddings.position_embeddings",),
        **_layers(
            {
                "attention_norm": "layernorm_before",
                "attention.qkv": "attention.q_proj attention.k_proj attention.v_proj",
                "attention.out": "attention.o_proj",
                "mlp_norm": "layernorm_after",
                "mlp.up": "mlp.fc1",
                "mlp.down": "mlp.fc2",
            },
            "vit.layers",
        ),
        "stack.norm": ("vit.layernorm",),
        "head": ("classifier",),
    },
    {**_LEARNED, **_DECODER},
    old_names=(  # before transformers 5
        (r"encoder\.layer\.", "layers."),
        (r"attention\.attention\.(query|key|value)", r"attention.\1"),
        (r"attention\.query", "attention.q_proj"),
        (r"attention\.key", "attention.k_proj"),
        (r"attention\.value", "attention.v_proj"),
        (r"attention\.output\.dense", "attention.o_proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"(layers\.\d+)\.output\.dense", r"\1.mlp.fc2"),
    ),
    leading={"cls": 2, "stack.positions.weight": 1},
)
FAMILIES = {"gpt2": _GPT2, "llama": _LLAMA, "mistral": _LLAMA, "bert": _BERT, "vit": _VIT}


def family_of(options: Options) -> Family:
    kind = options["model_type"]
    if kind not in FAMILIES:
        raise NotImplementedError(
            f"hf_config: model_type {kind!r} is not supported, only {', '.join(FAMILIES)} are"
        )
    return FAMILIES[kind]
