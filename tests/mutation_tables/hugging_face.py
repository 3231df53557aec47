"""Loading and saving weights of Hugging Face transformers."""

from .mutation import table

PRETRAINED = table(
    "fused_attention/integrations/hugging_face/{}.py",
    "integrations/test_hugging_face.py::test_{}",
    (
        (
            "gate and up swapped",
            "families/llama",
            '"mlp.gate_proj mlp.up_proj"',
            '"mlp.up_proj mlp.gate_proj"',
            "outputs[llama]",
        ),
        (
            "norms of a layer swapped",
            "families/bert",
            '"attention_norm": "attention.output.LayerNorm"',
            '"attention_norm": "output.LayerNorm"',
            "round_trip[bert]",
        ),
        (
            "weights (in, out) not transposed",
            "families/gpt2",
            r'transposed=r"\.c_\w+\.weight$"',
            r'transposed=r"\.c_attn\.weight$"',
            "outputs[gpt2]",
        ),
        (
            "erf for tanh, gelu_new",
            "families/shared",
            '"gelu_new": "gelu_tanh"',
            '"gelu_new": "gelu"',
            "outputs[gpt2]",
        ),
        (
            "window one key too long",
            "families/llama",
            "None if window is None else window - 1",
            "window",
            "outputs[mistral-3]",
        ),
        (
            "rope_theta not read",
            "families/llama",
            'rope.get("rope_theta", config.get',
            'rope.get("theta", config.get',
            "outputs[llama-theta]",
        ),
        (
            "eps not read",
            "families/llama",
            'config.get("rms_norm_eps", 1e-6)',
            "1e-6",
            "outputs[llama-one-kv-head]",
        ),
        (
            "rope_scaling ignored",
            "families/llama",
            '"rotary_scaling": _rotary_scaling(rope),',
            '"rotary_scaling": None,',
            "outputs[llama-3.1]",
        ),
        (
            "unknown rope_scaling let through",
            "families/llama",
            "if kind not in _ROPE_TYPES or given != set(fields.values()):",
            "if False:",
            "unsupported_options[*dynamic*]",
        ),
        (
            "unsupported options ignored",
            "hf_config",
            "if self.get(name, value) != value:",
            "if False:",
            "unsupported_options[*scale_attn_weights*]",
        ),
        (
            "surplus keys ignored",
            "pretrained",
            "if key not in expected and key not in copies",
            "if False",
            "every_wrong_key_is_listed",
        ),
        (
            "tied weights that differ let through",
            "pretrained",
            "not torch.equal(theirs[copy], theirs[key])",
            "False",
            "every_wrong_key_is_listed",
        ),
        (
            "exported weights share memory",
            "pretrained",
            "part.clone(memory_format=torch.contiguous_format)",
            "part",
            "round_trip[gpt2]",
        ),
        (
            "options that transformers lacks not checked",
            "pretrained",
            "if fields[k] not in known",
            "if False",
            "options_that_transformers_lacks[*]",
        ),
    ),
)
