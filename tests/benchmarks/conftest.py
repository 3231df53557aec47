import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.harness.runner import Machine, find_machine
from benchmarks.harness.session import Session

ROOT = Path(__file__).parents[2]


class QuickMachine(Machine):
    """The machine at hand, whose ceilings cost nothing."""

    def ceilings(self):
        return {"copy_gbytes_per_s": 10.0}


@pytest.fixture(scope="session")
def machine():
    found = find_machine("cpu")
    return QuickMachine(found.device, found.facts, found.fingerprint, found.method)


@pytest.fixture
def session(machine, tmp_path):
    """A run into a fresh folder, silent."""
    quiet = Console(quiet=True)
    return Session(tmp_path, machine, ["scaling", "--out", "results"], quiet, timeout=60.0)


@pytest.fixture
def cli():
    """Starts `python -m benchmarks` with the given words, as a user does from a checkout."""

    def start(*words, **options):
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks", *map(str, words)],
            cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell lets what it starts in the background ignore interrupts; so may this test run.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **options,
        )

    return start
