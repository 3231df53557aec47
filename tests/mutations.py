"""Breaks the code in one place at a time and checks that a named test fails.

    python -m tests.mutations                 every mutation, about a quarter of an hour
    python -m tests.mutations window lse      those whose name contains a word

Each mutation is applied to a copy of the repository, after its tests have passed there unchanged.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from .mutation_tables import MUTATIONS, Mutation

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".*_cache", ".hypothesis", ".benchmarks", "__pycache__", "build", "dist"
)


class Judgement(NamedTuple):
    caught: bool
    verdict: str


def pytest(tree: Path, interpreted: bool, *arguments: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    environment |= {"TRITON_INTERPRET": "1"} if interpreted else {}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )


def collect(tree: Path, interpreted: bool) -> list[str]:
    """The ids of the tests that run in a mode, in the files that mutations name."""
    files = sorted({f"tests/{mutation.test.split('::')[0]}" for mutation in MUTATIONS})
    return pytest(tree, interpreted, "--collect-only", *files).stdout.splitlines()


def named(tests: list[str], mutation: Mutation) -> list[str]:
    """The tests whose id matches ``mutation.test``, where * matches any text."""
    pattern = ".*".join(map(re.escape, f"tests/{mutation.test}".split("*")))
    return [test for test in tests if re.fullmatch(pattern, test)]


def judge(tree: Path, mutation: Mutation, tests: list[str]) -> Judgement:
    """Apply a mutation, run its tests, and restore the file."""
    if not tests:
        return Judgement(False, "no such test")
    path = tree / mutation.file
    source = path.read_text(encoding="utf-8")
    found = source.count(mutation.old)
    if found != 1:
        return Judgement(False, f"the old text occurs {found} times")
    path.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        status = pytest(tree, mutation.interpreted, *tests).returncode
    finally:
        path.write_text(source, encoding="utf-8")
    # 1: a test failed; negative: a signal killed the process.  Other codes: no test ran.
    if status == 1 or status < 0:
        return Judgement(True, "caught")
    return Judgement(False, "SURVIVED" if status == 0 else f"pytest exited with {status}")


def main(words: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    missed = not chosen
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, symlinks=True, ignore=LEFT_OUT)
        tests = {}
        for interpreted in (True, False):
            known = collect(tree, interpreted)
            tests |= {m: named(known, m) for m in chosen if m.interpreted == interpreted}
            unbroken = {t for m in chosen if m.interpreted == interpreted for t in tests[m]}
            if unbroken and pytest(tree, interpreted, *sorted(unbroken)).returncode:
                print("the tests fail without any mutation; fix that first")
                return 1
        for mutation in chosen:
            start = time.monotonic()
            outcome = judge(tree, mutation, tests[mutation])
            missed |= not outcome.caught
            mode = "interpreted" if mutation.interpreted else "torch"
            seconds = time.monotonic() - start
            print(f"{mutation.name:44} {mode:12} {outcome.verdict:10} {seconds:5.1f} s", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
