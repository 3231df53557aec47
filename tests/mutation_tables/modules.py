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
    torch(
        "modules without the hook that torch's fast path sees",
        f"{LAYERS}called.py",
        "        self.register_forward_pre_hook(_nothing)\n",
        "",
        "modules/test_containers.py::test_ours_are_called_and_right[encoder layer-*-none]",
    ),
    torch(
        "a norm without the hook",
        f"{LAYERS}norm.py",
        "@always_called\nclass LayerNorm",
        "class LayerNorm",
        "modules/test_containers.py::test_ours_are_called_and_right[encoder layer-norm-none]",
    ),
    torch(
        "an activation without the hook",
        f"{LAYERS}activation.py",
        "@always_called\nclass GELU",
        "class GELU",
        "modules/test_containers.py::test_an_activation_put_into_a_finished_layer_is_called",
    ),
    torch(
        "padding of a nested batch seen",
        f"{LAYERS}multihead_attention.py",
        "self.forward(padded, padded, padded, padding, False,",
        "self.forward(padded, padded, padded, None, False,",
        "modules/test_containers.py::test_ours_are_called_and_right[encoder-attention-padding]",
    ),
    torch(
        "a nested batch refused by a norm",
        f"{LAYERS}norm.py",
        "if type(input) is torch.Tensor and input.is_nested:",
        "if False:",
        "modules/test_containers.py::test_ours_are_called_and_right[encoder-norm-padding]",
    ),
    torch(
        "the shape of a hinted mask checked",
        f"{LAYERS}multihead_attention.py",
        "if hinted and isinstance(attn_mask, torch.Tensor) and attn_mask.ndim in (2, 3):",
        "if False:",
        "modules/test_modules.py::test_a_hinted_mask_is_not_read[*]",
    ),
    torch(
        "the shape of a mask that is read not checked",
        f"{LAYERS}multihead_attention.py",
        "if hinted and isinstance(attn_mask, torch.Tensor) and attn_mask.ndim in (2, 3):",
        "if isinstance(attn_mask, torch.Tensor) and attn_mask.ndim in (2, 3):",
        "modules/test_modules.py::test_a_mask_that_is_read_must_fit",
    ),
)
