"""The modules."""

from .mutation import torch

LAYERS = "fused_attention/modules/"
MODULES = (
    torch(
        "up activated, MLP",
        f"{LAYERS}mlp.py",
        "*h.chunk(2, -1)",
        "*h.chunk(2, -1)[::-1]",
        "modules/test_modules.py::test_mlp[swiglu-*]",
    ),
    torch(
        "dropout before the sum outside training",
        f"{LAYERS}norm.py",
        "self.dropout if self.training else 0.0",
        "self.dropout",
        "modules/test_modules.py::test_dropout_before_the_sum_in_training_only[*]",
    ),
    torch(
        "norm without residual returns it normalized",
        f"{LAYERS}norm.py",
        "return (normed, x) if",
        "return (normed, normed) if",
        "modules/test_modules.py::test_norm_without_a_residual[*]",
    ),
    torch(
        "padding mask inverted",
        f"{LAYERS}multihead_attention.py",
        "~m if m.dtype == torch.bool else m for m in masks",
        "m for m in masks",
        "modules/test_modules.py::test_multihead_attention[*-padding-*]",
    ),
    torch(
        "is_causal ignored",
        f"{LAYERS}multihead_attention.py",
        'variants += [causal("top_left")] if hinted else []',
        "variants += []",
        "modules/test_modules.py::test_is_causal_needs_the_causal_mask",
    ),
    torch(
        "weights of a fully masked query",
        f"{LAYERS}multihead_attention.py",
        ".softmax(-1).masked_fill(empty, 0)",
        ".softmax(-1)",
        "modules/test_modules.py::test_a_query_whose_keys_are_all_padded_gets_the_bias_and_no_nan[*]",
    ),
    torch(
        "label smoothing lost in the module",
        f"{LAYERS}loss.py",
        "            label_smoothing=self.label_smoothing,\n",
        "",
        "ops/test_parity.py::test_moduleinfo_inputs[torch-CrossEntropyLoss-float32]",
    ),
)
