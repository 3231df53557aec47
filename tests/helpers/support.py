"""Shared by many tests: the three legs, poisoned memory, tile sizes, counted launches."""

from __future__ import annotations

import contextlib
import itertools
import warnings

import pytest
import torch

from fused_attention._triton import INTERPRETED

FLOATS = (torch.float32, torch.float16, torch.bfloat16)

# The backends to test: PyTorch operations, interpreted Triton, and Triton on a GPU.
LEGS = (
    pytest.param("cpu", id="torch"),
    pytest.param("cpu", id="interpreted", marks=pytest.mark.interpreter),
    pytest.param("cuda", id="gpu", marks=pytest.mark.gpu),
)
every_leg = pytest.mark.parametrize("device", LEGS)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def dtypes_of(device: str, turn: int) -> tuple[torch.dtype, ...]:
    """All dtypes; where Triton is interpreted, one per case, in turn."""
    if device == "cuda":
        return FLOATS
    return (FLOATS[turn % len(FLOATS)],) if runs_triton(device) else (*FLOATS, torch.float64)


def over_cases(cases: dict):
    """Parametrize over device, case and dtype.

    On PyTorch operations every case runs in every dtype, fp64 too.  On Triton, where a launch costs
    a second or a compilation, each case runs in one dtype, and the dtypes alternate.
    """
    params = []
    for position, (name, case) in enumerate(cases.items()):
        turn = case.dtype or FLOATS[position % len(FLOATS)]
        for leg in LEGS:
            dtypes = (*FLOATS, torch.float64) if leg.id == "torch" else (turn,)
            params += [
                pytest.param(
                    *(leg.values[0], case, dtype),
                    id=f"{leg.id}-{name}-{name_of(dtype)}",
                    marks=leg.marks,
                )
                for dtype in dtypes
                if case.dtype in (None, dtype)
            ]
    return pytest.mark.parametrize("device, case, dtype", params)


def thinned(names: str, *axes):
    """Parametrize over device and ``names``, one for each of ``axes``, a sequence of values.

    On PyTorch operations every combination runs.  On Triton each value of the longest axis runs
    once, beside values of the others that take turns.
    """
    longest = max(map(len, axes))
    params = []
    for leg in LEGS:
        turns = ([axis[i % len(axis)] for axis in axes] for i in range(longest))
        for values in itertools.product(*axes) if leg.id == "torch" else turns:
            shown = [name_of(x) if isinstance(x, torch.dtype) else str(x) for x in values]
            params.append(
                pytest.param(leg.values[0], *values, id="-".join([leg.id, *shown]), marks=leg.marks)
            )
    return pytest.mark.parametrize(f"device, {names}", params)


@contextlib.contextmanager
def poisoned():
    """Fill uninitialized memory with NaN (integers: their largest value) in this context."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = before[2]


def set_tiles(monkeypatch, rows: int, keys: int):
    """Set the tile size of every backend: ``rows`` and ``keys`` are powers of two, 16 or more."""
    from fused_attention import tuning
    from fused_attention.ops.attention import tile_aten, tile_online, torch_backend

    config = tuning.AttentionConfig(rows, keys, 4, 1)
    monkeypatch.setattr(tuning, "config", lambda *args: config)
    monkeypatch.setattr(tile_online, "ROWS", rows)
    monkeypatch.setattr(tile_aten, "ROWS", rows)
    monkeypatch.setattr(
        torch_backend, "_online_tiles", _with_chunks(torch_backend._online_tiles, keys)
    )
    monkeypatch.setattr(torch_backend, "rows_per_tile", lambda problem, variants, most: most)


def _with_chunks(online_tiles, keys):
    return lambda *args: (online_tiles(*args)[0], keys)


def forget_bounds(monkeypatch, variants):
    """Remove the bounds of ``variants``, so that every tile is computed and masked."""
    from dataclasses import replace

    from fused_attention.variants import base

    for variant in variants:
        if variant.type.key_bounds is not None:
            kind = base._TYPES[variant.name]
            bare = replace(kind, key_bounds=None, query_bounds=None, torch_key_bounds=None)
            monkeypatch.setitem(base._TYPES, variant.name, bare)


class Launches:
    """Counts the attention kernels launched once `watch` is called."""

    def __init__(self):
        self.count = 0

    def watch(self, monkeypatch) -> Launches:
        from fused_attention.kernels import attention_backward, attention_forward

        for module, name in (
            (attention_forward, "attention_forward"),
            (attention_backward, "attention_delta"),
            (attention_backward, "attention_dkdv"),
            (attention_backward, "attention_dq"),
            (attention_backward, "attention_dbias"),
        ):
            monkeypatch.setattr(module, name, self._counted(getattr(module, name)))
        return self

    def _counted(self, launcher):
        def launch(*args, **options):
            self.count += 1
            return launcher(*args, **options)

        return launch


def runs_triton(device: str) -> bool:
    return device != "cpu" or INTERPRETED
