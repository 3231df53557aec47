"""The table of attention problems that all three legs run."""

from dataclasses import dataclass, field

import torch

from . import inputs
from .stacks import Sizes


@dataclass(frozen=True)
class AttentionCase:
    """Sizes, variants, kind of input and memory layout; ``options`` are those of `attention`.

    ``lse``: whether the loss includes the LSE.  ``dtype``: the only dtype of the case, if given.
    """

    shape: Sizes
    stack: str = ""
    kind: str = "normal"
    layout: str = "contiguous"
    do_layout: str = "contiguous"
    lse: bool = False
    options: dict = field(default_factory=dict)
    dtype: torch.dtype | None = None

    def inputs(self, dtype, device, seed=0):
        return inputs.make(
            *(self.shape, dtype, device),
            stack=self.stack,
            kind=self.kind,
            layout=self.layout,
            do_layout=self.do_layout,
            lse=self.lse,
            seed=seed,
        )


def _head_dim(dim, dim_v=None, **options):
    return AttentionCase(Sizes(1, 2, 1, 65, 70, dim, dim_v or dim), **options)


def _lengths(rows, keys, stack="", **options):
    return AttentionCase(Sizes(1, 2, 2, rows, keys, 16, 24), stack, **options)


def _groups(heads, kv_heads, stack="causal", **options):
    return AttentionCase(Sizes(2, heads, kv_heads, 33, 40, 16, 16), stack, **options)


HEAD_DIMS = {
    "head_dim_1": _head_dim(1),
    "head_dim_3": _head_dim(3, 5, stack="causal"),
    "head_dim_8": _head_dim(8, lse=True),
    "head_dim_16": _head_dim(16, 1, stack="softcap+causal"),
    "head_dim_24": _head_dim(24, stack="window", lse=True),
    "head_dim_32": _head_dim(32, 64),
    "head_dim_64": _head_dim(64, stack="causal", lse=True),
    "head_dim_80": _head_dim(80, stack="alibi+causal"),
    "head_dim_96": _head_dim(96, 32, lse=True),
    "head_dim_128": _head_dim(128, stack="causal"),
    "head_dim_192": _head_dim(192, 128, stack="causal", lse=True),
    "head_dim_256": _head_dim(256),
}
LENGTHS = {
    "one_by_one": _lengths(1, 1),
    "one_row": _lengths(1, 129, "causal", lse=True),
    "one_key": _lengths(65, 1, lse=True),
    "fewer_rows": _lengths(17, 63, "causal"),
    "fewer_keys": _lengths(63, 17, "causal", lse=True),
    "whole_tiles": _lengths(128, 128, "causal", lse=True),
    "one_over": _lengths(129, 65),
    "two_tiles_and_one": _lengths(65, 129, "causal+key_padding"),
    "fewer_keys_top_left": _lengths(129, 17, "top_left"),
    "fewer_rows_top_left": _lengths(17, 129, "top_left", lse=True),
    "fewer_keys_window": _lengths(129, 63, "window", lse=True),
}
GROUPS = {
    "group_1": _groups(3, 3),
    "group_3": _groups(3, 1, lse=True),
    "group_5": _groups(5, 1, "key_padding"),
    "group_7": _groups(7, 1, "softcap+alibi"),
    "group_8": AttentionCase(Sizes(1, 8, 1, 40, 33, 16, 16), "causal", lse=True),
    "groups_of_two": _groups(4, 2, "bias"),
    "groups_relative": _groups(4, 2, "relative+causal", lse=True),
    "groups_of_three": _groups(6, 2, "alibi_batch", lse=True),
}
LAYOUTS = {
    name: AttentionCase(Sizes(2, 4, 2, 65, 40, 16, 8), stack, layout=name, do_layout=do, lse=lse)
    for name, stack, do, lse in (
        ("bshd", "causal", "bshd", False),
        ("packed", "", "strided", True),
        ("strided", "key_padding", "broadcast", True),
        ("permuted", "alibi", "permuted", False),
        ("expanded", "bias_keys", "expanded", True),
        ("broadcast", "window", "packed", False),
    )
}
# Equal head dims and no LSE in the loss: the torch backend uses ATen's kernel, whole or per tile.
SQUARE = {
    name: AttentionCase(Sizes(2, 4, 2, rows, keys, 32, 32), stack, options=options)
    for name, stack, rows, keys, options in (
        ("square", "", 129, 70, {}),
        ("square_causal", "causal", 65, 65, {}),
        ("square_causal_fewer_rows", "causal", 33, 129, {}),
        ("square_top_left", "top_left", 129, 65, {}),
        ("square_window", "window", 129, 129, {}),
        ("square_padding", "causal+key_padding", 129, 65, {}),
        ("square_alibi", "alibi+window_both", 70, 129, {}),
        ("square_negative_scale", "causal", 33, 33, {"scale": -0.3}),
        ("square_zero_scale", "top_left", 33, 40, {"scale": 0.0}),
        ("square_large_scale", "causal", 33, 33, {"scale": 3.0}),
    )
}
HOSTILE = {
    "large": AttentionCase(Sizes(1, 2, 1, 65, 129, 64, 64), "causal", "large", lse=True),
    "large_softcap": AttentionCase(Sizes(1, 2, 1, 65, 65, 32, 32), "softcap", "large"),
    "large_one_row": AttentionCase(Sizes(1, 2, 2, 1, 65, 8, 8), "alibi", "large", lse=True),
    "constant": AttentionCase(Sizes(1, 2, 1, 65, 65, 16, 16), "", "constant", lse=True),
    "constant_causal": AttentionCase(Sizes(1, 2, 1, 40, 65, 16, 16), "alibi+causal", "constant"),
    "outliers": AttentionCase(Sizes(1, 2, 1, 65, 65, 64, 64), "causal", "outliers"),
    "outliers_bias": AttentionCase(
        Sizes(1, 2, 2, 65, 65, 16, 16), "bias_rows+window", "outliers", lse=True
    ),
    "tiny": AttentionCase(Sizes(1, 2, 2, 65, 129, 64, 64), "causal", "tiny", lse=True),
}
SCALES = {
    "negative_scale": _lengths(65, 70, "causal", lse=True, options={"scale": -0.7}),
    "negative_scale_softcap": _lengths(65, 70, "softcap", options={"scale": -0.7}),
    "zero_scale": _lengths(65, 70, "causal", lse=True, options={"scale": 0.0}),
    "large_scale": _lengths(65, 70, "window", options={"scale": 30.0}, dtype=torch.float32),
}
DROPOUT = {
    "dropout": _lengths(65, 70, lse=True, options={"dropout_p": 0.2}),
    "dropout_stack": _lengths(65, 70, "softcap+alibi+causal", options={"dropout_p": 0.5}),
    "dropout_group": _groups(6, 2, "key_padding", lse=True, options={"dropout_p": 0.3}),
    "dropout_bias": _groups(4, 2, "bias_shared+window", options={"dropout_p": 0.3}),
    "dropout_gate": _groups(4, 2, "gate+key_padding", options={"dropout_p": 0.3}),
    "dropout_window": _lengths(65, 129, "window", options={"dropout_p": 0.5}),
    "dropout_all": _lengths(33, 40, options={"dropout_p": 1.0}),
}
SINKS = {
    "sink": _groups(4, 2, "logit", lse=True),
    "sink_stack": _groups(6, 2, "softcap+logit+alibi+causal"),
    "sink_window": _lengths(129, 63, "window+logit", lse=True),
    "sink_dropout": _lengths(65, 70, "logit", options={"dropout_p": 0.3}),
    "sink_square": AttentionCase(Sizes(2, 4, 2, 65, 65, 32, 32), "causal+logit"),
}
# Wider than the kernels take: PyTorch operations on every leg.
WIDE = {
    "head_dim_257": _head_dim(257, 8, stack="causal", lse=True),
    "head_dim_320": _head_dim(320, stack="softcap+alibi+causal"),
    "head_dim_320_square": _head_dim(320, stack="causal"),
    "head_dim_v_300": _head_dim(8, 300, lse=True),
    "head_dim_300_dropout": _head_dim(300, options={"dropout_p": 0.3}),
}
CASES = HEAD_DIMS | LENGTHS | GROUPS | LAYOUTS | SQUARE | HOSTILE | SCALES | DROPOUT | SINKS | WIDE
