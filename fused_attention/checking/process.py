"""Kernel checks in another process, where Triton interprets the hooks on the CPU.

Triton reads TRITON_INTERPRET when it is imported: a process that was started without it cannot
interpret what it has decorated.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from .calls import Call
from .findings import Findings
from .names import kernel_checks


def check(calls: list[Call], findings: Findings) -> bool:
    """Check the kernel hooks in a process that imports the variant; whether they ran."""
    kind = calls[0].variant.type
    reason = None
    if kind.module == "__main__":
        reason = "its module is __main__, which another process cannot import"
    else:
        try:
            problem = pickle.dumps(calls)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            reason = str(error)
    if reason is None:
        with tempfile.TemporaryDirectory() as folder:
            found = _run(Path(folder), problem)
        if isinstance(found, Findings):
            findings.merge(found)
            return True
        reason = found
    findings.leave_out(
        kernel_checks(kind), f"{reason}; run with TRITON_INTERPRET=1 to check it in one process"
    )
    return False


def _run(folder: Path, problem: bytes) -> Findings | str:
    """The findings of the other process, or why there are none."""
    given, answer = folder / "calls", folder / "findings"
    given.write_bytes(problem)
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(given), str(answer)],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.exists():
        return pickle.loads(answer.read_bytes())
    last = (done.stderr.strip().splitlines() or ["nothing was printed"])[-1]
    return f"the process that interprets it ended with status {done.returncode}: {last}"


def _main(given: str, answer: str) -> None:
    from . import on_triton

    calls, findings = pickle.loads(Path(given).read_bytes()), Findings()
    on_triton.check(calls, torch.device("cpu"), findings)
    Path(answer).write_bytes(pickle.dumps(findings))


if __name__ == "__main__":
    _main(*sys.argv[1:])
