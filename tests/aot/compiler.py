"""Compile recorded launches ahead of time, for GPUs that need not be here, and read the result.

Launchers are called as in production, on meta tensors, and the launch they would make is compiled.
So the signatures, the specialization on divisibility and the tile sizes are those of a real run.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")

# Bytes of shared memory one program may have.
SHARED_LIMIT = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}

# The 16-bit matrix instruction of each target.
MATRIX_INSTRUCTION = {"sm_80": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "gfx942": "v_mfma"}


@dataclass
class Report:
    """What the compiler made of a case for a target."""

    case: Any
    target: str
    registers: int = 0
    spilled: int = 0
    shared: int = 0
    matrix: int = 0
    waits: int = 0
    vector_loads: int = 0
    vector_stores: int = 0
    warnings: list[str] = field(default_factory=list)
    error: str = ""


def matrix_instruction(case, target: str) -> str:
    """The matrix instruction of a case; the 16 rows of decoding are too few for the newest."""
    if str(case).startswith("paged_decode") and target.startswith("sm_"):
        return "HMMA"
    return MATRIX_INSTRUCTION[target]


@contextlib.contextmanager
def recorded_launches():
    """Yield the list of launches in this context, (kernel, arguments, keywords); none is run."""
    from triton.runtime.jit import JITFunction

    launches = []

    def record(self, *args, grid, warmup, **kwargs):
        launches.append((self, args, kwargs))

    run, JITFunction.run = JITFunction.run, record
    try:
        yield launches
    finally:
        JITFunction.run = run


def gpu_target(target: str):
    from triton.backends.compiler import GPUTarget

    if target.startswith("sm_"):
        return GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    return GPUTarget("hip", target, 64)


def bound(launch, target: str):
    """The signature, constants, attributes and options that Triton's binder derives of a launch."""
    from triton.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    kernel, args, kwargs = launch
    backend = make_backend(gpu_target(target))
    kwargs = {**kwargs, "debug": False}
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    arguments, specialization, options = bind(*args, **kwargs)
    options, *rest = kernel._pack_args(backend, kwargs, arguments, specialization, options)
    return *rest, options


def compiled(launch, target: str):
    """The kernel of a launch, compiled by Triton."""
    import triton
    from triton.compiler import ASTSource

    *specialized, options = bound(launch, target)
    source = ASTSource(launch[0], *specialized)
    return triton.compile(source, target=gpu_target(target), options=options.__dict__)


def inspect_launch(case, target: str, launch) -> Report:
    """Compile a launch; report its registers, spills, shared memory and instructions."""
    report = Report(case, target)
    try:
        kernel = compiled(launch, target)
    except Exception as error:  # a failure to compile is reported too
        report.error = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
        return report
    report.shared = kernel.metadata.shared
    read = _read_amd if target.startswith("gfx") else _read_nvidia
    read(kernel, report)
    return report


def _read_amd(kernel, report):
    text = kernel.asm["amdgcn"]

    def count(name):
        return int(re.search(rf"\.{name}:\s*(\d+)", text).group(1))

    report.registers = count("vgpr_count")
    report.spilled = count("vgpr_spill_count")  # scalar registers spill into vector registers
    report.matrix = text.count("v_mfma")
    report.vector_loads = len(re.findall(r"(?:global|buffer)_load_dwordx4", text))
    report.vector_stores = len(re.findall(r"(?:global|buffer)_store_dwordx4", text))


def _read_nvidia(kernel, report):
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(kernel.asm["cubin"])
        usage = _tool("cuobjdump", "-res-usage", cubin)
        sass = _tool("cuobjdump", "-sass", cubin)
        if report.target == "sm_90":
            ptx = Path(folder, "kernel.ptx")
            ptx.write_text(kernel.asm["ptx"])
            log = _tool("ptxas", "-v", "--gpu-name=sm_90a", ptx, "-o", Path(folder, "again.cubin"))
            report.warnings = sorted(set(re.findall(r"C75\d\d", log)))
    report.registers = int(re.search(r"REG:(\d+)", usage).group(1))
    report.spilled = len(re.findall(r"\b(?:STL|LDL)\b", sass))
    instruction = matrix_instruction(report.case, report.target)
    report.matrix = len(re.findall(rf"\b{instruction}\b", sass))
    report.waits = sass.count("WARPGROUP.DEPBAR")
    report.vector_loads = len(re.findall(r"\bLDG\S*\.128\b|\bLDGSTS\S*\.128\b|UBLKCP", sass))
    report.vector_stores = len(re.findall(r"\bSTG\S*\.128\b|UBLKCP", sass))


def _tool(name: str, *arguments) -> str:
    import triton

    binary = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    done = subprocess.run(
        [binary, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


def inspect_all(jobs: list[tuple], workers: int | None = None, *, inspect: Callable):
    """Reports in the order of the jobs, compiled in parallel, each worker a fresh process."""
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        yield from pool.map(inspect, *zip(*jobs, strict=True))


def table_of(title: str, reports):
    """The reports as a table for the terminal."""
    from rich.table import Table

    table = Table(title=title)
    columns = ("registers", "spilled", "shared", "matrix", "waits", "16-byte loads", "stores")
    for column in ("case", "target", *columns, "notes"):
        table.add_column(column, justify="right" if column in columns else "left")
    for report in reports:
        numbers = (report.registers, report.spilled, report.shared, report.matrix, report.waits)
        vectors = (report.vector_loads, report.vector_stores)
        notes = report.error or " ".join(report.warnings)
        table.add_row(str(report.case), report.target, *map(str, numbers + vectors), notes)
    return table
