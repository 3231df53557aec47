"""`examples/paged_generation.py` runs, and its numbers are right."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(name: str, *words: str) -> str:
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *words],
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_paged_generation(device):
    output = run("paged_generation.py", "--device", device)
    # 12 full pages of the prompt are shared; each answer has 3 for 8 prompt and 39 new tokens.
    assert "16 tokens: 36 used" in output
    assert "120 with a prompt for every answer, 128 in a contiguous cache" in output
    different = int(re.search(r"(\d+) different", output).group(1))
    assert different == 8
    assert "equal" in output and "DIFFERENT" not in output
    assert "kept 3 of 5 new tokens" in output
    assert "192 of 200 tokens found, 8 to compute" in output
    free, blocks = re.search(r"in the end: (\d+) of (\d+)", output).groups()
    assert free == blocks
