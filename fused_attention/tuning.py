"""Tile sizes, warps and stages: the only place that knows one GPU from another.

Every entry was chosen by compiling it ahead of time (`make aot`): the largest tiles tried that
neither spill nor outgrow shared memory, and that keep the matrix units' own instructions; where
none does all of that, `tests/aot/test_aot.py` says so.  None has been timed on a GPU yet.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class AttentionConfig(NamedTuple):
    """A program of an attention kernel: a tile of block_m rows of q and block_n keys."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


class NormConfig(NamedTuple):
    """A program of a norm: a tile of block_m rows and block_n columns."""

    block_m: int
    block_n: int
    num_warps: int


class BlockConfig(NamedTuple):
    """A program of a one-dimensional kernel: a block of elements, or of classes."""

    block: int
    num_warps: int


class TileConfig(NamedTuple):
    """A program of a pointwise kernel that must know its columns."""

    block_rows: int
    block_columns: int
    num_warps: int


class RotaryConfig(NamedTuple):
    """A program of the rotary kernel: block_positions positions of ``heads`` heads in turn."""

    block_positions: int
    heads: int
    num_warps: int


INTERPRETER = "interpreter"
# Small, so that small problems have tiles of every kind.
_INTERPRETED = AttentionConfig(64, 32, 4, 1)
_INTERPRETED_DECODE = AttentionConfig(16, 32, 4, 1)

# What programs of kernels/paged_cache.py handle: numbers of one token, and of one block.
APPEND_ELEMENTS = 4096
COPY_ELEMENTS = 4096

# A decoding program waits for memory: several of them keep a multiprocessor's loads in flight.
# One that has many rows to compute needs no company.  Fewer keys are not worth another program.
_DECODING_PROGRAMS = 4
_KEYS_PER_SPLIT = 256
MAX_SPLITS = 128

# 16-bit inputs: (block_m, block_n, num_warps, num_stages) for head_dim up to 64, 128 and 256.
_HALF = {
    "forward": {
        "sm_80": ((128, 64, 8, 3), (128, 64, 8, 2), (64, 32, 8, 2)),
        "sm_90": ((128, 64, 8, 3), (128, 64, 8, 3), (64, 64, 8, 2)),
        "sm_100": ((128, 64, 8, 3), (128, 64, 8, 3), (64, 64, 8, 2)),
        "gfx942": ((128, 64, 8, 2), (128, 32, 8, 2), (64, 32, 8, 2)),
    },
    "dkdv": {
        "sm_80": ((32, 64, 8, 1), (64, 64, 8, 1), (32, 32, 8, 1)),
        "sm_90": ((64, 64, 8, 1), (32, 64, 8, 1), (32, 32, 8, 1)),
        "sm_100": ((64, 64, 8, 1), (64, 64, 8, 1), (32, 32, 8, 1)),
        "gfx942": ((32, 64, 8, 1), (32, 64, 4, 1), (16, 64, 8, 1)),
    },
    "dq": {
        "sm_80": ((64, 64, 8, 2), (64, 64, 8, 2), (64, 32, 8, 1)),
        "sm_90": ((64, 64, 8, 2), (64, 64, 8, 2), (64, 64, 8, 2)),
        "sm_100": ((64, 64, 8, 2), (64, 64, 8, 2), (64, 64, 8, 1)),
        "gfx942": ((64, 64, 8, 1), (64, 32, 8, 1), (64, 32, 4, 1)),
    },
    "dbias": {
        "sm_80": ((64, 32, 8, 1), (32, 32, 8, 1), (16, 32, 4, 1)),
        "sm_90": ((64, 32, 8, 1), (64, 32, 8, 1), (64, 32, 8, 1)),
        "sm_100": ((64, 64, 8, 1), (64, 64, 8, 1), (64, 32, 8, 1)),
        "gfx942": ((64, 64, 8, 1), (64, 64, 8, 1), (32, 32, 4, 1)),
    },
    "paged_decode": {  # of three stages, one is the block table's
        "sm_80": ((16, 64, 4, 3), (16, 64, 4, 3), (16, 32, 8, 3)),
        "sm_90": ((16, 64, 4, 3), (16, 64, 4, 3), (16, 64, 4, 3)),
        "sm_100": ((16, 64, 4, 3), (16, 64, 4, 3), (16, 64, 4, 3)),
        "gfx942": ((16, 64, 4, 2), (16, 32, 4, 2), (16, 32, 4, 2)),
    },
    "paged_prefill": {
        "sm_80": ((64, 64, 4, 3), (64, 64, 8, 3), (64, 32, 8, 3)),
        "sm_90": ((64, 64, 4, 3), (64, 64, 8, 3), (64, 64, 8, 2)),
        "sm_100": ((64, 64, 4, 3), (64, 64, 8, 3), (64, 64, 8, 2)),
        "gfx942": ((64, 64, 4, 2), (64, 32, 4, 2), (64, 32, 8, 2)),
    },
}

# fp32 inputs, the same on every GPU: there are no matrix units to feed, only registers to spare.
_SINGLE = {
    "forward": ((32, 32, 4, 1), (32, 32, 8, 1), (16, 32, 8, 1)),
    "dkdv": ((16, 32, 8, 1), (16, 32, 8, 1), (16, 16, 4, 1)),
    "dq": ((16, 32, 8, 1), (16, 32, 8, 1), (16, 16, 4, 1)),
    "dbias": ((16, 32, 8, 1), (16, 32, 8, 1), (16, 16, 4, 1)),
    "paged_decode": ((16, 32, 4, 1), (16, 32, 4, 1), (16, 16, 4, 1)),
    "paged_prefill": ((32, 32, 4, 1), (32, 32, 8, 1), (16, 32, 8, 1)),
}


def config(kernel: str, head_dim: int, dtype: torch.dtype, arch: str) -> AttentionConfig:
    """For ``kernel`` forward, dkdv, dq, dbias or paged_*.

    ``head_dim`` is the larger of q's and v's; ``arch`` comes from `architecture`.
    """
    if arch == INTERPRETER:
        return _INTERPRETED_DECODE if kernel == "paged_decode" else _INTERPRETED
    sizes = _SINGLE[kernel] if dtype == torch.float32 else _HALF[kernel][_family(arch)]
    return AttentionConfig(*sizes[0 if head_dim <= 64 else 1 if head_dim <= 128 else 2])


# Norms: the most columns of a tile, its numbers, and how many of them a thread holds.
_NORM = {
    "forward": (16384, 4096, 16),
    "forward_long": (8192, 8192, 16),
    "backward": (8192, 4096, 8),
    "backward_long": (4096, 4096, 8),
    "columns": (64, 2048, 16),
    "reduce": (32, 1024, 8),
}
_NORM_INTERPRETED = {
    "forward": (2048, 2048, 16),
    "forward_long": (2048, 2048, 16),
    "backward": (2048, 2048, 16),
    "backward_long": (2048, 2048, 16),
    "columns": (16384, 32768, 16),
    "reduce": (65536, 131072, 16),
}


def norm(kernel: str, num_columns: int, arch: str) -> NormConfig:
    """For ``kernel`` forward, forward_long, backward, backward_long, columns or reduce.

    Rows longer than block_n do not fit: those are for the long kernels, which take one at a time.
    """
    table = _NORM_INTERPRETED if arch == INTERPRETER else _NORM
    longest, numbers, per_thread = table[kernel]
    block_n = min(longest, max(16, 1 << (num_columns - 1).bit_length()))
    block_m = 1 if kernel.endswith("long") else max(1, min(64, numbers // block_n))
    lanes = 64 if arch.startswith("gfx") else 32
    num_warps = max(1, min(512 // lanes, block_m * block_n // (lanes * per_thread)))
    return NormConfig(block_m, block_n, num_warps)


def programs(device: torch.device, num_warps: int) -> int:
    """How many programs of so many warps, each with a share of all rows, keep a device busy."""
    if device.type == "cpu":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count * max(1, 32 // num_warps)


# Numbers of a pointwise program: in 16-bit, one load of 16 bytes a thread for a tile, else two.
_TILE, _FLAT = 1024, 2048
# Programs of a sum over the rows, however many rows there are.
_REDUCING = 1024


def pointwise() -> BlockConfig:
    """For numbers in the order they lie in memory."""
    return BlockConfig(_FLAT, 4)


def tile(columns: int) -> TileConfig:
    """For a matrix with so many columns; the number of its rows changes nothing."""
    block = min(_TILE, 1 << max(0, columns - 1).bit_length())
    return TileConfig(_TILE // block, block, 4)


def reducing_programs(rows: int, columns: int, config: TileConfig) -> int:
    """How many programs share the row tiles of a sum over the rows."""
    column_tiles = -(-columns // config.block_columns)
    return max(1, min(-(-rows // config.block_rows), _REDUCING // column_tiles))


def rotary() -> RotaryConfig:
    return RotaryConfig(16, 8, 4)


def paged(
    head_dim: int,
    group: int,
    queries: int,
    page_size: int,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    arch: str,
) -> AttentionConfig:
    """For attention over pages: ``queries`` of a sequence, ``group`` query heads on a key head.

    block_m holds the heads of at least one token, block_n divides the page; converting from 8
    bits takes registers, which more warps have.
    """
    kernel = "paged_decode" if queries == 1 or queries * group <= 16 else "paged_prefill"
    found = config(kernel, head_dim, dtype, arch)
    return found._replace(
        block_m=max(found.block_m, 1 << (group - 1).bit_length()),
        block_n=min(found.block_n, page_size & -page_size),
        num_warps=8 if kv_dtype.itemsize == 1 else found.num_warps,
    )


def splits(programs: int, keys: int, block_m: int, device: torch.device) -> int:
    """Among how many programs to divide a sequence's keys, given how many there are without.

    Only shapes are known on the host: ``keys`` is what the table has room for, and shorter
    sequences leave some splits with little or nothing.
    """
    if device.type == "cpu":
        return 1
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    wanted = multiprocessors * (_DECODING_PROGRAMS if block_m <= 16 else 1) // programs
    return max(1, min(wanted, keys // _KEYS_PER_SPLIT, MAX_SPLITS))


def has_e4m3(arch: str) -> bool:
    """Whether 8-bit floats are a type there; the others read them as bytes."""
    return arch.startswith("sm_") and int(arch.removeprefix("sm_")) >= 89


def cross_entropy(num_classes: int, arch: str) -> BlockConfig:
    """How many classes a program holds at once: 16 a thread where the row is long enough."""
    if arch == INTERPRETER:
        return BlockConfig(64, 4)
    block = min(4096, max(128, 1 << (num_classes - 1).bit_length()))
    return BlockConfig(block, max(1, block // 512))


def linear_cross_entropy_rows(dim: int) -> int:
    """How many tokens have their logits held at once.

    As many as there are channels: their logits then weigh what the gradient of the weight does,
    which is held anyway, and adding up that gradient costs no more traffic than they do.  Fewer
    than 256 would starve the product, more than 1,024 would not feed it better.
    """
    return min(1024, max(256, dim))


def rows_in_cache(columns: int) -> int:
    """How many fp32 rows fit 4 MB, for several operations in turn to find them in a CPU's cache."""
    return max(1, (1 << 20) // max(1, columns))


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
