"""The code in the README runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fused_attention as fa

ROOT = Path(__file__).parents[1]
REPLACED = re.findall(
    r"^\| `([^`]*)` \| `(fa\.[^`]*)` \|$",
    (ROOT / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_the_examples_run(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    script = tmp_path / "examples.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, script],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "b' is all you need. ' b' need. Attention i'" in result.stdout


def names() -> dict:
    """The names that the lines of the drop-in table use, with values."""
    torch.manual_seed(0)
    matrices = ("x", "residual", "gate", "up", "hidden")
    cos, sin = fa.rotary_tables(9, 64)

    def rotate(x, cos, sin):
        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)

    return {
        **{name: torch.randn(5, 9, 64) for name in matrices},
        **{name: torch.randn(64) for name in ("weight", "bias")},
        "q": torch.randn(2, 4, 9, 64),
        "k": torch.randn(2, 2, 9, 64),
        "cos": cos,
        "sin": sin,
        "rotate": rotate,
        "logits": torch.randn(5, 11),
        "vocabulary": torch.randn(11, 64),
        "F": F,
        "nn": nn,
        "fa": fa,
    }


def value(code: str, known: dict, torchs: nn.Module | None = None):
    """The value of the last statement, and the module that made it, if it is one.

    ``torchs``: the torch module whose parameters are copied into ours before the call.
    """
    *before, last = code.split("; ")
    exec("\n".join(before), known)
    found = eval(last, known)
    if not isinstance(found, nn.Module):
        return found, None
    if torchs is not None:
        assert [p.shape for p in found.parameters()] == [p.shape for p in torchs.parameters()]
        with torch.no_grad():
            for ours, theirs in zip(found.parameters(), torchs.parameters(), strict=True):
                ours.copy_(theirs)
    if isinstance(found, nn.CrossEntropyLoss):
        return found(known["logits"], known["target"]), found
    if isinstance(found, nn.MultiheadAttention):
        return found(known["x"], known["x"], known["x"]), found
    return found(known["x"]), found


@pytest.mark.parametrize("theirs, ours", REPLACED, ids=[ours for _, ours in REPLACED])
def test_each_line_of_the_drop_in_table_computes_what_it_replaces(theirs, ours):
    known = names()
    known["target"] = torch.randint(11, (5, 9) if "linear" in ours else (5,))
    if "linear" in ours:  # F.cross_entropy wants the classes in the second dimension
        known["hidden"], known["target"] = known["hidden"].flatten(0, 1), known["target"].flatten()
    expected, module = value(theirs, dict(known))
    found, _ = value(ours, dict(known), module)
    torch.testing.assert_close(found, expected)


def test_the_drop_in_table_is_complete():
    replaced = " ".join(ours for _, ours in REPLACED)
    functions = (
        "layer_norm rms_norm add_layer_norm add_rms_norm gelu bias_gelu geglu swiglu "
        "apply_rotary cross_entropy linear_cross_entropy LayerNorm RMSNorm GELU MLP "
        "CrossEntropyLoss MultiheadAttention"
    )
    assert [name for name in functions.split() if f"fa.{name}(" not in replaced] == []
