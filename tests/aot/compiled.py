"""Compile every kernel ahead of time, for GPUs that need not be here, and say what came out.

``python -m tests.aot`` prints the table; `tests/test_aot.py` asserts what it promises.  Launchers
are called as in production, on meta tensors, and what they would have launched is compiled: so the
signatures, the specialization on divisibility and the tile sizes are those of a real run.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from . import paged as aot_paged

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")

# Bytes of shared memory one program may have.
SHARED_LIMIT = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}

# The instruction that feeds each target's matrix units in 16-bit.
MATRIX_INSTRUCTION = {"sm_80": "HMMA", "sm_90": "HGMMA", "sm_100": "UTCHMMA", "gfx942": "v_mfma"}


class Case(NamedTuple):
    """One kernel at one problem: what is compiled, for every target."""

    kernel: str
    dtype: str
    head_dim: int
    stack: str
    dropout_p: float = 0.0

    def __str__(self):
        dropout = "+dropout" if self.dropout_p else ""
        return f"{self.kernel}-{self.dtype}-d{self.head_dim}-{self.stack}{dropout}"


@dataclass
class Report:
    """What the compiler made of a case for a target."""

    case: Case
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


def cases() -> list[Case]:
    """Every kernel x the tuned head dims and dtypes, and the stacks that stress the hooks."""
    table = [
        Case(kernel, dtype, head_dim, "causal")
        for dtype, head_dims in (("bfloat16", (64, 128, 256)), ("float32", (64, 128)))
        for head_dim in head_dims
        for kernel in ("forward", "dkdv", "dq")
    ]
    table += [
        Case(kernel, "bfloat16", head_dim, stack, dropout_p)
        for kernel in ("forward", "dkdv", "dq")
        for head_dim, stack, dropout_p in (
            (128, "full", 0.0),
            (128, "softcap+alibi+window+padding", 0.0),
            (64, "full", 0.1),
            (80, "causal", 0.0),
        )
    ]
    table += [
        Case("dbias", "bfloat16", 128, "bias"),
        Case("dbias", "bfloat16", 64, "alibi+softcap"),
        Case("delta", "bfloat16", 128, "full"),
    ]
    return table + [Case(*row) for row in aot_paged.ROWS]


def multiplies(case: Case) -> bool:
    """Whether the kernel has matrix products."""
    return case.kernel != "delta" and (
        not case.kernel.startswith("paged") or aot_paged.multiplies(case)
    )


def matrix_instruction(case, target: str) -> str:
    """What feeds the matrix units; the 16 rows of decoding are too few for the newest."""
    if str(case).startswith("paged_decode") and target.startswith("sm_"):
        return "HMMA"
    return MATRIX_INSTRUCTION[target]


def variants_of(stack: str, batch: int, heads: int, seqlen: int):
    """The stacks named in the table, on meta tensors."""
    import torch

    import fused_attention as fa

    named = {
        "causal": fa.causal,
        "softcap": lambda: fa.softcap(30.0),
        "alibi": lambda: fa.alibi(torch.empty(heads, device="meta")),
        "window": lambda: fa.sliding_window(256),
        "padding": lambda: fa.key_padding(torch.empty(batch, dtype=torch.int32, device="meta")),
        "bias": lambda: fa.bias(
            torch.empty(1, heads, seqlen, seqlen, dtype=torch.bfloat16, device="meta")
        ),
    }
    return [named[name]() for name in stack.split("+") if name != "full"]


def launch(case: Case, target: str) -> None:
    """Call the launcher of a case, as production would, on meta tensors."""
    import torch

    if case.kernel.startswith("paged"):
        aot_paged.launch(case, target)
        return
    from fused_attention import philox, tuning
    from fused_attention.kernels import attention_backward, attention_forward
    from fused_attention.kernels.launch import LaunchOptions
    from fused_attention.ops.attention.triton_backend import variant_stack

    batch, heads, kv_heads, seqlen, head_dim = 2, 8, 4, 4096, case.head_dim
    dtype = getattr(torch, case.dtype)

    def tensor(heads):
        return torch.empty(batch, heads, seqlen, head_dim, dtype=dtype, device="meta")

    q, o, do, dq = (tensor(heads) for _ in range(4))
    k, v, dk, dv = (tensor(kv_heads) for _ in range(4))
    lse, delta = (torch.empty(batch, heads, seqlen, device="meta") for _ in range(2))
    variants = variants_of(case.stack, batch, heads, seqlen)
    tuned = "dq" if case.kernel == "delta" else case.kernel
    config = tuning.config(tuned, head_dim, dtype, target)
    options = LaunchOptions(head_dim**-0.5, variant_stack(variants), config, "ieee")
    if case.dropout_p:
        options = options._replace(
            seed=torch.empty(1, dtype=torch.int64, device="meta"),
            dropout_threshold=philox.threshold(case.dropout_p),
            dropout_scale=philox.inverse_keep(case.dropout_p),
        )
    launchers = {
        "forward": lambda: attention_forward.attention_forward(q, k, v, o, lse, options),
        "delta": lambda: attention_backward.attention_delta(o, do, None, delta, options.config),
        "dkdv": lambda: attention_backward.attention_dkdv(q, k, v, do, lse, delta, dk, dv, options),
        "dq": lambda: attention_backward.attention_dq(q, k, v, do, lse, delta, dq, options),
        "dbias": lambda: attention_backward.attention_dbias(
            q, k, v, do, lse, delta, variants[0].args[0].shape, 0, options
        ),
    }
    launchers[case.kernel]()


def recorded_launch(case: Case, target: str):
    """The kernel, arguments and keywords that the launcher of a case would launch."""
    with recorded_launches() as launches:
        launch(case, target)
    (only,) = launches
    return only


@contextlib.contextmanager
def recorded_launches():
    """The list of (kernel, arguments, keywords) launched meanwhile, which nothing runs."""
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
    """What Triton's own binder makes of a launch: signature, constants, attributes, options."""
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
    """The kernel of a launch, from Triton's own compiler."""
    import triton
    from triton.compiler import ASTSource

    *specialized, options = bound(launch, target)
    source = ASTSource(launch[0], *specialized)
    return triton.compile(source, target=gpu_target(target), options=options.__dict__)


def inspect(case: Case, target: str) -> Report:
    """Compile a case and read off the result."""
    return inspect_launch(case, target, recorded_launch(case, target))


def inspect_launch(case, target: str, launch) -> Report:
    """Registers, spills, shared memory and instructions of what a launch compiles to."""
    report = Report(case, target)
    try:
        kernel = compiled(launch, target)
    except Exception as error:  # the compiler's failures are results too
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


def inspect_all(jobs: list[tuple], workers: int | None = None, inspect: Callable = inspect):
    """Reports in the order of the jobs, compiled in parallel, each worker a fresh process."""
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        yield from pool.map(inspect, *zip(*jobs, strict=True))


def table_of(title: str, reports):
    """What a person reads."""
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


def main(words: list[str]) -> int:
    from rich.console import Console

    from . import ops as aot_ops

    def chosen(cases):
        return [case for case in cases if not words or any(word in str(case) for word in words)]

    console = Console(width=150)
    jobs = [(case, target) for case in chosen(cases()) for target in TARGETS]
    if jobs:
        console.print(table_of("Attention, compiled ahead of time", inspect_all(jobs)))
    problems = {target: chosen(aot_ops.problems(target)) for target in TARGETS}
    jobs = [job for target in TARGETS for job in aot_ops.jobs(problems[target], target)]
    if jobs:
        reports = inspect_all(jobs, inspect=aot_ops.inspect)
        console.print(table_of("Fused ops, compiled ahead of time", reports))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
