"""Dependencies point one way: visualize -> models -> modules -> ops -> kernels.

Only checking, models and visualize import reference; within ops, only a triton_backend imports
kernels.
docs/architecture.md draws the same picture.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "fused_attention"

# The other parts of the package that each part may import.
MAY_IMPORT = {
    "kernels": set(),
    "variants": {"kernels"},
    "ops": {"kernels", "variants"},
    "reference": {"variants"},
    "cache": {"ops", "variants"},
    "checking": {"kernels", "ops", "reference", "variants"},
    "modules": {"ops", "cache", "variants"},
    "generation": {"cache"},
    "objectives": {"ops"},
    "models": {"generation", "integrations", "modules", "ops", "reference", "variants"},
    "visualize": {"models", "reference"},
    "integrations": {"modules", "ops", "cache", "variants"},
    "testing": {"__init__"},
}
# Outside the order: these may import the whole package, and the package never imports them.
FREE = {"__init__", "benchmarks"}
# The floors of the benchmarks, and the studies, which share only the floors and `attention`.
FLOORS = {
    "present": {"present"},
    "harness": {"harness", "present"},
    "studies": {"harness", "present", "studies"},
}
# Every other file of the package is a leaf: all parts but kernels may import it, and it imports
# only leaves.
LEAVES = {path.stem for path in (ROOT / PACKAGE).glob("*.py")} - set(MAY_IMPORT) - FREE
# Imported absolutely, these names of our folders may resolve to other packages.
FOREIGN = {"kernels", "benchmarks", "tests"}


def module_name(path):
    """``kernels/hooks.py`` -> ``fused_attention.kernels.hooks``, as installed."""
    parts = path.with_suffix("").parts
    return ".".join(parts if parts[0] == PACKAGE else (PACKAGE, *parts))


def part_of(name):
    """The part of the package that a dotted name belongs to; ``__init__`` for the root."""
    return [*name.split("."), "__init__"][1]


def imported_names(source, module):
    """Yield (line, absolute dotted name) for every import, nested ones included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def floor_violated(module, name):
    """Whether a module of the benchmarks imports from a floor above its own or another study."""
    here, there = module.split(".")[1:], name.split(".")[1:]
    if here[0] != "benchmarks" or there[:1] != ["benchmarks"] or here[1] not in FLOORS:
        return False
    if there[1] not in FLOORS[here[1]]:
        return True
    return there[1] == here[1] == "studies" and there[2] not in (here[2], "attention")


def violations(source, path):
    """The imports of the file at ``path`` that break the order, one sentence each."""
    module = module_name(path)
    part = part_of(module)
    allowed = {part} | MAY_IMPORT.get(part, set()) | (LEAVES if part != "kernels" else set())
    found = []
    for line, name in imported_names(source, module):
        top, target = name.split(".")[0], part_of(name)
        if top in FOREIGN:
            found.append(f"{path}:{line}: {name!r} is not ours once installed: import relatively")
        elif floor_violated(module, name):
            found.append(f"{path}:{line}: {module!r} must not import {name!r}")
        elif part == "ops" and target == "kernels" and path.name != "triton_backend.py":
            found.append(f"{path}:{line}: only a triton_backend may import {name!r}")
        elif top == PACKAGE and part not in FREE and target not in allowed:
            found.append(f"{path}:{line}: {part} must not import {name!r}")
    return found


def sources():
    for folder in (PACKAGE, "kernels", "benchmarks"):
        yield from (path.relative_to(ROOT) for path in sorted((ROOT / folder).rglob("*.py")))


def test_dependencies_point_one_way():
    found = [text for path in sources() for text in violations((ROOT / path).read_text(), path)]
    assert not found, "\n".join(found)


def test_importing_the_package_does_not_import_its_testing():
    code = "import sys, fused_attention; sys.exit('fused_attention.testing' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_part_is_read():
    parts = {part_of(module_name(path)) for path in sources()}
    assert {"__init__", "kernels", "variants", "ops", "reference", "benchmarks"} <= parts


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/hooks.py", "from fused_attention.ops import attention"),
        ("kernels/hooks.py", "from .._triton import jit"),
        ("kernels/hooks.py", "def late():\n    import fused_attention"),
        ("kernels/hooks.py", "from kernels import hooks"),
        ("fused_attention/ops/attention.py", "from .. import reference"),
        ("fused_attention/ops/attention.py", "from ..reference import attention"),
        ("fused_attention/ops/attention.py", "import fused_attention.modules"),
        ("fused_attention/ops/attention.py", "from fused_attention import causal"),
        ("fused_attention/ops/deeper/tiles.py", "from ...models import gpt"),
        ("fused_attention/ops/norm/layer_norm.py", "from ...kernels import norm"),
        (
            "fused_attention/ops/norm/torch_backend.py",
            "def late():\n    from ...kernels import norm",
        ),
        ("fused_attention/ops/__init__.py", "from ..models import gpt"),
        ("fused_attention/variants/causal.py", "from ..ops import attention"),
        ("fused_attention/modules.py", "from .models.gpt import GPT"),
        ("fused_attention/models/gpt.py", "from ..kernels import gelu"),
        ("fused_attention/tuning.py", "from .benchmarks import measure"),
        ("fused_attention/__init__.py", "import kernels"),
        ("fused_attention/_triton.py", "from .ops import attention"),
        ("fused_attention/novelty/deep.py", "from ..variants import causal"),
        ("benchmarks/cli.py", "from benchmarks.present.fits import fit"),
        ("fused_attention/testing/gelu.py", "from ..benchmarks import timing"),
        ("benchmarks/present/tables.py", "from ..harness import timing"),
        ("benchmarks/harness/store.py", "from ..studies.attention.point import AttentionPoint"),
        ("benchmarks/studies/decode/worker.py", "from ..ops import worker"),
        ("benchmarks/studies/attention/worker.py", "from ..scaling.theory import textbook"),
        ("fused_attention/testing/gelu.py", "from tests import op_budget"),
        ("fused_attention/ops/gelu.py", "from ..testing import CASES"),
    ],
)
def test_a_violation_is_found(path, source):
    assert len(violations(source, Path(path))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/attention_forward.py", "import triton\nfrom .hooks import apply_scores"),
        ("kernels/attention_forward.py", "from . import hooks"),
        ("fused_attention/ops/norm/triton_backend.py", "from ...kernels import norm"),
        ("fused_attention/ops/attention.py", "from .. import _triton, variants"),
        ("fused_attention/ops/paged/triton_backend.py", "from ...kernels.hooks import bounds"),
        ("fused_attention/ops/__init__.py", "from .attention import attention"),
        ("fused_attention/__init__.py", "from . import reference\nfrom .ops import attention"),
        (
            "benchmarks/studies/attention/providers.py",
            "import fused_attention as fa\nfrom . import flops",
        ),
        ("fused_attention/testing/gelu.py", "import fused_attention as fa\nfrom . import op_case"),
        ("benchmarks/harness/progress.py", "from ..present.units import size\nfrom . import store"),
        ("benchmarks/studies/targets/run.py", "from ...present import fits\nfrom . import table"),
        ("benchmarks/studies/scaling/run.py", "from ..attention import errors"),
    ],
)
def test_what_is_allowed_passes(path, source):
    assert violations(source, Path(path)) == []
