"""Compile every kernel for every target and print a table.

python -m tests.aot               all of them
python -m tests.aot forward d128  those whose name contains one of the words
"""

from __future__ import annotations

import sys

from . import attention, compiler, ops


def main(words: list[str]) -> int:
    import torch
    from rich.console import Console

    torch.set_num_threads(1)  # forked workers would wait for OpenMP threads that they lack

    def chosen(cases):
        return [case for case in cases if not words or any(word in str(case) for word in words)]

    console = Console(width=150)
    jobs = [(case, target) for case in chosen(attention.cases()) for target in compiler.TARGETS]
    if jobs:
        reports = compiler.inspect_all(jobs, inspect=attention.inspect)
        console.print(compiler.table_of("Attention, compiled ahead of time", reports))
    problems = {target: chosen(ops.problems(target)) for target in compiler.TARGETS}
    jobs = [job for target in compiler.TARGETS for job in ops.jobs(problems[target], target)]
    if jobs:
        reports = compiler.inspect_all(jobs, inspect=ops.inspect)
        console.print(compiler.table_of("Fused ops, compiled ahead of time", reports))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
