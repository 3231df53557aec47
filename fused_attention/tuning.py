"""Tile sizes, warps and stages: the only place that knows one GPU from another.

Every entry compiles without spilling for its target (``make aot``); none has been timed on a GPU
yet.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Config(NamedTuple):
    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


INTERPRETER = "interpreter"
_INTERPRETED = Config(64, 32, 4, 1)  # small, so that small problems have tiles of every kind


def forward(head_dim: int, dtype: torch.dtype, arch: str) -> Config:
    """For the forward kernel; ``head_dim`` the larger of q's and v's."""
    if arch == INTERPRETER:
        return _INTERPRETED
    if dtype == torch.float32:
        return Config(64, 32, 4, 2) if head_dim <= 128 else Config(32, 32, 4, 1)
    if head_dim <= 64:
        return Config(128, 64, 4, 3)
    return Config(128, 64, 8, 2) if head_dim <= 128 else Config(64, 32, 4, 2)


def backward(head_dim: int, dtype: torch.dtype, arch: str) -> Config:
    """For the gradient kernels."""
    if arch == INTERPRETER:
        return _INTERPRETED
    if dtype == torch.float32:
        return Config(32, 32, 4, 1)
    return Config(64, 64, 8, 2) if head_dim <= 128 else Config(32, 32, 4, 1)


def architecture(device: torch.device) -> str:
    """The compile target's name: sm_90, gfx942, or "interpreter" on the CPU."""
    if device.type == "cpu":
        return INTERPRETER
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return properties.gcnArchName.split(":")[0]
    return f"sm_{properties.major}{properties.minor}"
