"""Every kernel, compiled for GPUs that need not be here: no spills, matrix instructions, fits.

Seen failing on: tiles too large for the registers (spills) or for shared memory, or too small for
wgmma (no HGMMA); a body whose wgmmas ptxas serializes; rows read element by element; the number of
rows as a constexpr of the kernel.
"""

import pytest

from . import attention, compiler, ops

pytestmark = pytest.mark.aot

# Configurations that cannot meet a requirement, each with the reason.
SPILLS = {  # fp32 products run on scalar units, and Triton keeps their operands in registers
    (case, target)
    for case in ("dkdv-float32-d128-causal", "dq-float32-d128-causal")
    for target in ("sm_80", "sm_90", "sm_100")
}
SPILLS |= {  # Philox uses the last registers: six spills, and two
    ("dkdv-bfloat16-d64-full+dropout", "sm_90"),
    ("dq-bfloat16-d64-full+dropout", "sm_80"),
    ("dq-bfloat16-d64-full+dropout", "sm_100"),
}
SPILLS |= {  # ten spills, and two: scores of four variants; one: scales of each token
    ("dkdv-bfloat16-d128-softcap+alibi+window+padding", "sm_80"),
    ("dkdv-bfloat16-d128-softcap+alibi+window+padding", "gfx942"),
    ("paged_prefill/float8_e4m3fn/token-bfloat16-d128-causal", "gfx942"),
}
NO_MATRIX_INSTRUCTION = {  # its minimum of 64 keys spills with four operands of head_dim 256
    ("dkdv-bfloat16-d256-causal", "sm_90"),
    ("dkdv-bfloat16-d256-causal", "sm_100"),
}
OP_SPILLS = {  # two spills: ptxas limits itself to 64 registers, so that two programs run at once
    ("rms_norm-bfloat16-h8192: _norm_backward_kernel", "sm_100"),
}
# Kernels that only read rows: they store one number per row or column.
NO_ROWS_STORED = {"_cross_entropy_forward_kernel", "_norm_columns_kernel", "_norm_reduce_kernel"}


@pytest.fixture(scope="module", params=compiler.TARGETS)
def reports(request):
    """All cases for one target, compiled in parallel."""
    jobs = [(case, request.param) for case in attention.cases()]
    return list(compiler.inspect_all(jobs, inspect=attention.inspect))


def complaints(report: compiler.Report) -> list[str]:
    """The requirements that a report fails, in words, except those in the tables above."""
    where = (str(report.case), report.target)
    found = [report.error] if report.error else []
    if report.spilled and where not in SPILLS:
        found.append(f"spills {report.spilled} times")
    if report.shared > compiler.SHARED_LIMIT[report.target]:
        found.append(f"needs {report.shared} bytes of shared memory")
    needs_matrix = report.case.dtype == "bfloat16" and attention.multiplies(report.case)
    if needs_matrix and not report.matrix and where not in NO_MATRIX_INSTRUCTION:
        found.append(f"does not use {compiler.matrix_instruction(report.case, report.target)}")
    if report.target == "sm_90" and report.matrix and report.waits > report.matrix // 2:
        found.append(f"waits {report.waits} times for {report.matrix} wgmmas")
    return found + [f"ptxas warns {warning}" for warning in report.warnings]


def test_every_kernel_compiles_well(reports):
    bad = [
        f"{report.case}: {'; '.join(found)}" for report in reports if (found := complaints(report))
    ]
    assert not bad, "\n".join(bad)


def test_complaints_are_raised():
    case = attention.KernelCase("forward", "bfloat16", 64, "full")
    report = compiler.Report(case, "sm_90", spilled=3, shared=300_000, matrix=0)
    assert len(complaints(report)) == 3
    assert complaints(compiler.Report(case, "sm_90", matrix=32, waits=32))
    assert not complaints(compiler.Report(case, "sm_90", matrix=32, waits=4))


@pytest.mark.parametrize("target", compiler.TARGETS)
def test_every_op_compiles_well(target):
    jobs = ops.jobs(ops.problems(target), target)
    bad = [
        f"{report.case}: {'; '.join(found)}"
        for report in compiler.inspect_all(jobs, inspect=ops.inspect)
        if (found := complaints_of_op(report))
    ]
    assert not bad, "\n".join(bad)


def complaints_of_op(report: compiler.Report) -> list[str]:
    """The requirements that a report on an op fails: no spills, fits in shared memory, and on
    NVIDIA, where rows are aligned, loads and stores of 16 bytes."""
    found = [report.error] if report.error else []
    if report.spilled and (str(report.case), report.target) not in OP_SPILLS:
        found.append(f"spills {report.spilled} times")
    if report.shared > compiler.SHARED_LIMIT[report.target]:
        found.append(f"needs {report.shared} bytes of shared memory")
    if report.case.problem.contiguous and report.target.startswith("sm_"):
        if not report.vector_loads:
            found.append("loads less than 16 bytes at a time")
        if not report.vector_stores and report.case.kernel not in NO_ROWS_STORED:
            found.append("stores less than 16 bytes at a time")
    return found


def test_complaints_of_ops_are_raised():
    def report(hidden, **found):
        problem = ops.CompiledProblem("layer_norm", "bfloat16", hidden)
        launched = ops.Launched(problem, "_norm_forward_kernel", 0)
        return compiler.Report(launched, "sm_90", **found)

    assert len(complaints_of_op(report(64, spilled=1, shared=300_000))) == 4
    assert not complaints_of_op(report(64, vector_loads=2, vector_stores=1))
    assert not complaints_of_op(report(100))


@pytest.mark.parametrize("problem", ops.problems("sm_90"), ids=str)
def test_the_number_of_rows_recompiles_nothing(problem):
    compiled = {
        rows: {ops.compiled_for(launch, "sm_90") for launch in ops.launches(problem, "sm_90", rows)}
        for rows in (1, 2, 16, 17, 48)
    }
    assert compiled[48], "nothing is launched"
    for rows, kernels in compiled.items():
        assert kernels == compiled[48], f"{rows} rows"
