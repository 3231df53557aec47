"""Tile sizes, warps and stages: the only place that knows one GPU from another.

Every entry was chosen by compiling it ahead of time (`make aot`): the largest tiles that neither
spill nor outgrow shared memory, and that keep the matrix units' own instructions.  None of them
has been timed on a GPU yet.
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

# 16-bit inputs: configurations for head_dim up to 64, 128 and 256.
_HALF = {
    ("forward", "sm_80"): (Config(128, 64, 8, 3), Config(128, 64, 8, 2), Config(64, 32, 8, 2)),
    ("forward", "sm_90"): (Config(128, 64, 8, 3), Config(128, 64, 8, 3), Config(64, 64, 8, 2)),
    ("forward", "sm_100"): (Config(128, 64, 8, 3), Config(128, 64, 8, 3), Config(64, 64, 8, 2)),
    ("forward", "gfx942"): (Config(128, 64, 8, 2), Config(128, 64, 8, 2), Config(64, 32, 8, 2)),
    ("key_gradient", "sm_80"): (Config(32, 64, 8, 1), Config(64, 64, 8, 1), Config(32, 32, 8, 1)),
    ("key_gradient", "sm_90"): (Config(64, 64, 8, 1), Config(32, 64, 8, 2), Config(32, 32, 8, 1)),
    ("key_gradient", "sm_100"): (Config(64, 64, 8, 1), Config(64, 64, 8, 1), Config(32, 32, 8, 1)),
    ("key_gradient", "gfx942"): (Config(32, 64, 8, 1), Config(32, 64, 8, 1), Config(16, 64, 8, 1)),
    ("query_gradient", "sm_80"): (Config(64, 64, 8, 2), Config(64, 64, 8, 2), Config(64, 32, 8, 1)),
    ("query_gradient", "sm_90"): (Config(64, 64, 8, 2), Config(64, 64, 8, 2), Config(64, 64, 8, 2)),
    ("query_gradient", "sm_100"): (
        Config(64, 64, 8, 2),
        Config(64, 64, 8, 2),
        Config(64, 64, 8, 1),
    ),
    ("query_gradient", "gfx942"): (
        Config(64, 64, 8, 1),
        Config(64, 32, 8, 1),
        Config(64, 32, 4, 1),
    ),
}

# fp32 inputs, the same on every GPU: there are no matrix units to feed, only registers to spare.
_SINGLE = {
    "forward": (Config(32, 32, 4, 1), Config(32, 32, 8, 1), Config(16, 32, 8, 1)),
    "key_gradient": (Config(16, 32, 8, 1), Config(16, 32, 8, 1), Config(16, 16, 4, 1)),
    "query_gradient": (Config(16, 32, 8, 1), Config(16, 32, 8, 1), Config(16, 16, 4, 1)),
}


def config(kernel: str, head_dim: int, dtype: torch.dtype, arch: str) -> Config:
    """For ``kernel`` forward, key_gradient or query_gradient (which serves the others too).

    ``head_dim`` is the larger of q's and v's; ``arch`` comes from `architecture`.
    """
    if arch == INTERPRETER:
        return _INTERPRETED
    sizes = _SINGLE[kernel] if dtype == torch.float32 else _HALF[kernel, _family(arch)]
    return sizes[0 if head_dim <= 64 else 1 if head_dim <= 128 else 2]


def architecture(device: torch.device) -> str:
    """The compile target's name, such as sm_90 or gfx942; "interpreter" on the CPU."""
    if device.type == "cpu":
        return INTERPRETER
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return properties.gcnArchName.split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def _family(arch: str) -> str:
    """The tuned target nearest to ``arch``; what is small enough for sm_80 runs on any NVIDIA."""
    if arch.startswith("gfx"):
        return "gfx942"
    return {"sm_90": "sm_90", "sm_100": "sm_100", "sm_103": "sm_100"}.get(arch, "sm_80")
