"""Options that the attention launchers share, and the kernel arguments made from them."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton


class VariantStack(NamedTuple):
    """The hooks of a stack of variants, and their arguments in the same order; see `hooks`."""

    masks: tuple = ()
    mask_args: tuple = ()
    key_bounds: tuple = ()
    query_bounds: tuple = ()
    scores: tuple = ()
    score_args: tuple = ()
    score_grads: tuple = ()
    arg_grads: tuple = ()


class LaunchOptions(NamedTuple):
    """Options of attention other than its tensors.

    ``seed`` is an int64 tensor, or None for no dropout; ``config`` has block_m, block_n, num_warps
    and num_stages; ``precision`` is the input precision of tl.dot for fp32, "ieee" or "tf32".
    """

    sm_scale: float
    stack: VariantStack
    config: Any
    precision: str
    seed: Any = None
    dropout_threshold: int = 0
    dropout_scale: float = 1.0

    @property
    def arguments(self) -> tuple:
        """The last run-time arguments of every kernel."""
        return (
            self.sm_scale,
            self.dropout_threshold,
            self.dropout_scale,
            self.stack.mask_args,
            self.stack.score_args,
        )

    def constants(self, q, k, v) -> dict[str, Any]:
        """The constexpr arguments of every kernel, and the launch parameters."""
        return dict(
            MASKS=self.stack.masks,
            SCORES=self.stack.scores,
            DROPOUT=self.seed is not None,
            GROUP_SIZE=q.shape[1] // k.shape[1],
            HEAD_DIM=q.shape[3],
            HEAD_DIM_V=v.shape[3],
            BLOCK_M=self.config.block_m,
            BLOCK_N=self.config.block_n,
            BLOCK_D=padded(q.shape[3]),
            BLOCK_DV=padded(v.shape[3]),
            PRECISION=self.precision,
            num_warps=self.config.num_warps,
            num_stages=self.config.num_stages,
        )


def strides(*tensors) -> list[int]:
    """The strides of all but the last dimension, which is contiguous."""
    return [stride for x in tensors for stride in x.stride()[:3]]


def padded(head_dim: int) -> int:
    """The power of two that a head_dim is padded to; at least 16, as matrix units require."""
    return max(16, triton.next_power_of_2(head_dim))
