"""The benchmarks."""

from .mutation import torch

BENCHMARKS = (
    torch(
        "code digest without nested files",
        "benchmarks/harness/provenance.py",
        '("**/*.py", "kernels/**/*.py")',
        '("*.py", "*/*.py")',
        "benchmarks/harness/test_provenance.py::test_a_change_in_a_nested_file_*",
    ),
    torch(
        "the working directory not searched",
        "benchmarks/harness/lookup.py",
        "sys.path.insert(0, os.getcwd())",
        "pass",
        "benchmarks/harness/test_lookup.py::test_a_module_in_the_working_directory_is_found[*]",
    ),
    torch(
        "a missing package is a traceback",
        "benchmarks/__main__.py",
        "if error.name is None or error.name.startswith(OURS):",
        "if True:",
        "benchmarks/test_cli.py::test_a_package_that_is_missing_is_one_line[typer]",
    ),
    torch(
        "a row written in part",
        "benchmarks/harness/store.py",
        "file.truncate(end)",
        "pass",
        "benchmarks/harness/test_store.py::test_a_row_without_room_is_not_written_in_part[*]",
    ),
    torch(
        "a full disk is a traceback",
        "benchmarks/cli.py",
        "if error.errno not in FULL:",
        "if True:",
        "benchmarks/test_cli.py::test_a_full_disk_is_one_line_and_keeps_the_rows[*]",
    ),
    torch(
        "torch always timed second",
        "benchmarks/harness/timing.py",
        "    if number % 2 == 0:\n",
        "    if True:\n",
        "benchmarks/studies/test_ops.py::test_rivals_take_turns_in_going_first",
    ),
    torch(
        "model compared with itself",
        "benchmarks/studies/model/worker.py",
        "for attention in (point.provider, BASELINE)",
        "for attention in (point.provider, point.provider)",
        "benchmarks/studies/test_model.py::test_time_is_beside_that_of_naive_attention_in_turns",
    ),
    torch(
        "gradient of one output only compared",
        "benchmarks/studies/ops/worker.py",
        "torch.autograd.grad(outs, leaves, self.d_outs)",
        "torch.autograd.grad(outs[-1:], leaves, self.d_outs[-1:])",
        "benchmarks/studies/test_ops.py::test_a_wrong_op_stands_out[wrong_gradient_of_sum]",
    ),
    torch(
        "verdict without the interval",
        "benchmarks/studies/ops/analysis.py",
        "UNCLEAR if point.speedup_high >= FLOOR else MISSED",
        "MISSED",
        "benchmarks/studies/test_ops.py::test_verdicts[*unclear*]",
    ),
)
