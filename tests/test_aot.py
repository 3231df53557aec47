"""What every kernel compiles to on GPUs that are not here: no spills, matrix instructions, fits.

Seen failing on: tiles too large for the registers (spills), for shared memory, or too small for
wgmma (no HGMMA); a body whose wgmmas ptxas serialises.
"""

import pytest

from . import aot

pytestmark = pytest.mark.aot

# Configurations that cannot meet a demand, each with the reason.
SPILLS = {  # fp32 products run on scalar units, and Triton keeps their operands in registers
    (case, target)
    for case in ("key_gradient-float32-d128-causal", "query_gradient-float32-d128-causal")
    for target in ("sm_80", "sm_90", "sm_100")
} | {("key_gradient-bfloat16-d64-full+dropout", "sm_90")}  # Philox wants the last ten registers
NO_MATRIX_INSTRUCTION = {  # 64 keys, the least it takes, spill with four operands of head_dim 256
    ("key_gradient-bfloat16-d256-causal", "sm_90"),
    ("key_gradient-bfloat16-d256-causal", "sm_100"),
}


@pytest.fixture(scope="module", params=aot.TARGETS)
def reports(request):
    """All cases for one target, compiled in parallel."""
    jobs = [(case, request.param) for case in aot.cases()]
    return list(aot.inspect_all(jobs))


def complaints(report: aot.Report) -> list[str]:
    """What a report breaks of DESIGN's demands, in words; exceptions are the tables above."""
    where = (str(report.case), report.target)
    found = [report.error] if report.error else []
    if report.spilled and where not in SPILLS:
        found.append(f"spills {report.spilled} times")
    if report.shared > aot.SHARED_LIMIT[report.target]:
        found.append(f"needs {report.shared} bytes of shared memory")
    needs_matrix = report.case.dtype == "bfloat16" and report.case.kernel != "delta"
    if needs_matrix and not report.matrix and where not in NO_MATRIX_INSTRUCTION:
        found.append(f"does not use {aot.MATRIX_INSTRUCTION[report.target]}")
    if report.target == "sm_90" and report.matrix and report.waits > report.matrix // 2:
        found.append(f"waits {report.waits} times for {report.matrix} wgmmas")
    return found + [f"ptxas warns {warning}" for warning in report.warnings]


def test_every_kernel_compiles_well(reports):
    bad = [
        f"{report.case}: {'; '.join(found)}" for report in reports if (found := complaints(report))
    ]
    assert not bad, "\n".join(bad)


def test_complaints_are_raised():
    case = aot.Case("forward", "bfloat16", 64, "full")
    report = aot.Report(case, "sm_90", spilled=3, shared=300_000, matrix=0)
    assert len(complaints(report)) == 3
    assert complaints(aot.Report(case, "sm_90", matrix=32, waits=32))
    assert not complaints(aot.Report(case, "sm_90", matrix=32, waits=4))
