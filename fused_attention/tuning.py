"""Launch configurations: tile sizes, warps and stages of every kernel on every GPU architecture.

Every entry was chosen by compiling ahead of time (`make aot`): the largest tiles tried that do not
spill, fit in shared memory, and use the instructions of the matrix units.  `tests/aot/test_aot.py`
lists the entries for which no tile does all three.  No entry has been timed on a GPU yet.
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
    """A program of a pointwise kernel over a matrix: a tile of block_rows and block_columns."""

    block_rows: int
    block_columns: int
    num_warps: int


class RotaryConfig(NamedTuple):
    """A program of the rotary kernel: block_positions positions, in a loop over ``heads`` heads."""

    block_positions: int
    heads: int
    num_warps: int


INTERPRETER = "interpreter"
# Small, so that small problems have both full and partial tiles.
_INTERPRETED = AttentionConfig(64, 32, 4, 1)
_INTERPRETED_DECODE = AttentionConfig(16, 32, 4, 1)

# Elements per program of kernels/paged_cache.py: of one token, and of one block.
APPEND_ELEMENTS = 4096
COPY_ELEMENTS = 4096

# Programs per multiprocessor for decoding, which is bound by memory: several programs keep loads
# in flight.  One program per multiprocessor is enough if its tile has many rows.
_DECODING_PROGRAMS = 4
_KEYS_PER_SPLIT = 256  # fewer keys are not worth a program
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
        "gfx942": ((32, 64, 4, 1), (32, 64, 4, 1), (16, 64, 8, 1)),
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
    "paged_decode": {  # one of three stages loads the block table
        "sm_80": ((16, 64, 4, 3), (16, 64, 4, 3), (16, 32, 8, 3)),
        "sm_90": ((16, 64, 4, 3), (16, 64, 4, 3), (16, 64, 4, 3)),
        "sm_100": ((16, 64, 4, 3), (16, 64, 4, 3), (16, 64, 4, 3)),
        "gfx942": ((16, 64, 4, 2), (16, 32, 4, 2), (16, 32, 4, 2)),
    },
    "paged_prefill": {
        "sm_80": ((64, 64, 4, 3), (64, 64, 8, 3), (64, 32, 8, 3)),
        "sm_90": ((64, 64, 4, 3), (64, 64, 8, 3), (64, 64, 8, 2)),
        "sm_100": ((64, 64, 8, 3), (64, 64, 8, 3), (64, 64, 8, 2)),
        "gfx942": ((64, 64, 4, 2), (64, 32, 4, 2), (64, 32, 8, 2)),
    },
}

# fp32 inputs, the same on every GPU: registers limit the tiles, not matrix units.
_SINGLE = {
    "forward": ((32, 32, 4, 1), (32, 32, 8, 1), (16, 32, 8, 1)),
    "dkdv": ((16, 32, 8, 1), (16, 32, 8, 1), (16, 16, 4, 1)),
    "dq": ((16, 32, 8, 1), (16, 32, 8, 1), (16, 16, 4, 1)),
    "dbias": ((16, 32, 8, 1), (16, 32, 8, 1), (16, 16, 4, 1)),
    "paged_decode": ((16, 32, 4, 1), (16, 32, 4, 1), (16, 16, 4, 1)),
    "paged_prefill": ((32, 32, 4, 1), (32, 32, 8, 1), (16, 32, 8, 1)),
}


def config(kernel: str, head_dim: int, dtype: torch.dtype, arch: str) -> AttentionConfig:
    """Configuration of an attention ``kernel``: forward, dkdv, dq, dbias or paged_*.

    ``head_dim`` is the larger of q's and v's; ``arch`` comes from `architecture`.
    """
    if arch == INTERPRETER:
        return _INTERPRETED_DECODE if kernel == "paged_decode" else _INTERPRETED
    sizes = _SINGLE[kernel] if dtype == torch.float32 else _HALF[kernel][_family(arch)]
    return AttentionConfig(*sizes[0 if head_dim <= 64 else 1 if head_dim <= 128 else 2])


# Norms: the most columns of a tile, the elements of a tile, and the elements per thread.
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
    """Configuration of a norm ``kernel``: forward(_long), backward(_long), columns or reduce.

    Rows longer than block_n need a long kernel, whose programs take one row at a time.
    """
    table = _NORM_INTERPRETED if arch == INTERPRETER else _NORM
    longest, numbers, per_thread = table[kernel]
    block_n = min(longest, max(16, 1 << (num_columns - 1).bit_length()))
    block_m = 1 if kernel.endswith("long") else max(1, min(64, numbers // block_n))
    lanes = 64 if arch.startswith("gfx") else 32
    num_warps = max(1, min(512 // lanes, block_m * block_n // (lanes * per_thread)))
    return NormConfig(block_m, block_n, num_warps)


def programs(device: torch.device, num_warps: int) -> int:
    """The number of programs of ``num_warps`` warps, sharing all rows, that occupy the device."""
    if device.type == "cpu":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count * max(1, 32 // num_warps)


# Elements per pointwise program: of 16-bit elements a thread loads 16 bytes once in a tile kernel,
# twice in a flat kernel.
_TILE, _FLAT = 1024, 2048
# The most programs of a sum over rows, whatever the number of rows.
_REDUCING = 1024


def pointwise() -> BlockConfig:
    """Configuration of a flat kernel over a dense tensor, in memory order."""
    return BlockConfig(_FLAT, 4)


def tile(columns: int) -> TileConfig:
    """Configuration for a matrix with ``columns`` columns and any number of rows."""
    block = min(_TILE, 1 << max(0, columns - 1).bit_length())
    return TileConfig(_TILE // block, block, 4)


def reducing_programs(rows: int, columns: int, config: TileConfig) -> int:
    """The number of programs that share the row tiles in a sum over rows."""
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
    """Configuration of paged attention: queries per sequence, ``group`` query heads per key head.

    block_m covers the heads of at least one token, and block_n divides the page.  Conversion from
    8 bits takes registers, so these kernels have 8 warps.
    """
    kernel = "paged_decode" if queries == 1 or queries * group <= 16 else "paged_prefill"
    found = config(kernel, head_dim, dtype, arch)
    return found._replace(
        block_m=max(found.block_m, 1 << (group - 1).bit_length()),
        block_n=min(found.block_n, page_size & -page_size),
        num_warps=8 if kv_dtype.itemsize == 1 else found.num_warps,
    )


def splits(programs: int, keys: int, block_m: int, device: torch.device) -> int:
    """The number of programs that share the keys of a sequence; ``programs`` is without splits.

    The host knows shapes only: ``keys`` is the capacity of the block table, so some splits of a
    shorter sequence get few keys or none.
    """
    if device.type == "cpu":
        return 1
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    wanted = multiprocessors * (_DECODING_PROGRAMS if block_m <= 16 else 1) // programs
    return max(1, min(wanted, keys // _KEYS_PER_SPLIT, MAX_SPLITS))


def has_e4m3(arch: str) -> bool:
    """Whether the architecture has an e4m3 type; kernels for others read e4m3 as bytes."""
    return arch.startswith("sm_") and int(arch.removeprefix("sm_")) >= 89


def cross_entropy(num_classes: int, arch: str) -> BlockConfig:
    """Classes that a program holds at once: 16 per thread if the row is long enough."""
    if arch == INTERPRETER:
        return BlockConfig(64, 4)
    block = min(4096, max(128, 1 << (num_classes - 1).bit_length()))
    return BlockConfig(block, max(1, block // 512))


def linear_cross_entropy_rows(dim: int) -> int:
    """The number of tokens whose logits are in memory at once.

    With as many tokens as channels, the logits take as much memory as the gradient of the weight,
    which is in memory anyway, and accumulating that gradient costs no more memory traffic than the
    logits.  Fewer than 256 tokens slow the matrix product down; more than 1,024 do not speed it up.
    """
    return min(1024, max(256, dim))


def rows_in_cache(columns: int) -> int:
    """The number of fp32 rows in 4 MB, which stay in a CPU's cache between two operations."""
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
    """The tuned architecture nearest to ``arch``; the tiles of sm_80 fit on every NVIDIA GPU."""
    if arch.startswith("gfx"):
        return "gfx942"
    return {"sm_90": "sm_90", "sm_100": "sm_100", "sm_103": "sm_100"}.get(arch, "sm_80")
