"""Every way to install the package works, with and without Hugging Face's ``kernels`` installed.

Our top-level folders ``kernels`` and ``benchmarks`` must not shadow other packages once installed:
``kernels`` is also the name of a package that transformers imports.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.xdist_group("packaging")

ROOT = Path(__file__).parents[1]
PROBE = """
import importlib, json, sys
result = {"path": [p for p in sys.path[:1]], "error": {}}
for name in ["fused_attention", "kernels", "benchmarks", *sys.argv[1:]]:
    try:
        result[name] = getattr(importlib.import_module(name), "__file__", None)
    except Exception as error:
        result["error"][name] = repr(error)
print(json.dumps(result))
"""


def run(*command, cwd, **environment):
    """Run a command offline with a clean Python environment; its output is the failure message."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**inherited, "PIP_NO_INDEX": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def our_files(root):
    """Every file that the installed package must contain, as posix paths relative to ``root``."""
    return {
        path.relative_to(root).as_posix()
        for folder, _, names in os.walk(root / "fused_attention", followlinks=True)
        for path in (Path(folder, name) for name in names)
        if not {"__pycache__", "results"} & set(path.relative_to(root).parts)
    }


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A fresh copy of the working tree: tracked and unignored files, with symlinks preserved."""
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT)
    target = tmp_path_factory.mktemp("packaging") / "checkout"
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(ROOT / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    return target


@pytest.fixture(scope="session")
def distributions(checkout):
    """An sdist of the checkout, and the wheel built from that sdist."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "../dist", cwd=checkout)
    (sdist,) = (checkout.parent / "dist").glob("*.tar.gz")
    (wheel,) = (checkout.parent / "dist").glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def wheel(distributions):
    return distributions[1]


@pytest.fixture(scope="session")
def new_python(tmp_path_factory):
    """Make an interpreter that sees this one's packages and a stub ``kernels``, but not ours."""

    def make(name):
        home = tmp_path_factory.mktemp("venv") / name
        venv.create(home, symlinks=True)
        python = home / "bin" / "python"
        ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = Path(run(python, "-c", ask, cwd=home).strip())
        (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        (site / "kernels").mkdir()
        (site / "kernels" / "__init__.py").touch()
        return python, site

    return make


def install(python, *arguments, cwd):
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    flags = ("--ignore-installed", "--no-deps", "--no-build-isolation", "--no-compile")
    run(*pip, *flags, *arguments, cwd=cwd)


@pytest.fixture(scope="session")
def from_wheel(new_python, wheel):
    python, site = new_python("wheel")
    install(python, wheel, cwd=wheel.parent)
    return python, site


@pytest.fixture(scope="session")
def from_editable(new_python, checkout):
    python, site = new_python("editable")
    install(python, "--editable", checkout, cwd=checkout)
    return python, site


@pytest.fixture(scope="session")
def from_nothing(new_python):
    return new_python("bare")


def probe(python, cwd, *modules):
    return json.loads(run(python, "-c", PROBE, *modules, cwd=cwd))


def test_wheel_holds_the_whole_package_and_nothing_else(checkout, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
        links = [i.filename for i in archive.infolist() if i.external_attr >> 28 == 0o12]
    assert names == our_files(checkout)
    assert links == []
    assert {PurePosixPath(name).parts[1] for name in names} >= {"kernels", "benchmarks", "ops"}


def test_sdist_holds_the_whole_package_and_no_tests(checkout, distributions):
    with tarfile.open(distributions[0]) as archive:
        members = {m.name.partition("/")[2]: m for m in archive.getmembers() if not m.isdir()}
    assert all(member.isfile() or member.islnk() for member in members.values())
    code = {name for name in members if name.startswith("fused_attention/")}
    assert code == our_files(checkout)
    rest = {name for name in members if "/" not in name}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= rest
    folders = {PurePosixPath(name).parts[0] for name in members if "/" in name}
    assert folders == {"fused_attention", "fused_attention.egg-info"}


def test_every_module_of_the_wheel_imports_away_from_the_repository(from_wheel, wheel, tmp_path):
    python, site = from_wheel
    with zipfile.ZipFile(wheel) as archive:
        files = [PurePosixPath(name) for name in archive.namelist() if name.endswith(".py")]
    modules = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]
    result = probe(python, tmp_path, *modules)
    assert set(result["error"]) == {"benchmarks"}, result["error"]
    for file, module in zip(files, modules, strict=True):
        assert result[module] == str(site / file)
    assert result["kernels"] == str(site / "kernels" / "__init__.py")


def test_wheel_brings_the_console_script(from_wheel, tmp_path):
    python, _ = from_wheel
    printed = run(python.parent / "fused-attention", "--help", cwd=tmp_path)
    assert "scaling" in printed


def test_the_console_script_finds_a_provider_in_the_working_directory(from_wheel, tmp_path):
    python, _ = from_wheel
    (tmp_path / "own.py").write_text(
        "from fused_attention.benchmarks.studies.attention.providers import PreparedCall\n\n"
        "def plain(workload):\n"
        "    return PreparedCall(lambda q, k, v: (q @ k.mT).softmax(-1) @ v)\n",
        encoding="utf-8",
    )
    options = "--seq-lens 16 --heads 2 --head-dim 16 --mode forward --repeats 1 --cache warm"
    words = ("scaling", "--providers", "naive,own:plain", *options.split(), "--out", "results")
    run(python.parent / "fused-attention", *words, cwd=tmp_path)
    lines = (tmp_path / "results" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["provider"]: row["status"] for row in map(json.loads, lines)}
    assert rows == {"naive": "ok", "own:plain": "ok"}


@pytest.mark.parametrize("scheme", ["from_wheel", "from_editable", "from_nothing"])
def test_a_checkout_runs_its_own_code_and_does_not_shadow_kernels(scheme, checkout, request):
    python, site = request.getfixturevalue(scheme)
    result = probe(python, checkout, "fused_attention.kernels.hooks")
    assert result["fused_attention"] == str(checkout / "fused_attention" / "__init__.py")
    assert result["kernels"] == str(site / "kernels" / "__init__.py")
    expected = checkout / "fused_attention" / "kernels" / "hooks.py"
    assert result["fused_attention.kernels.hooks"] == str(expected)


def test_editable_install_is_seen_away_from_the_checkout(from_editable, checkout, tmp_path):
    python, site = from_editable
    result = probe(python, tmp_path, "fused_attention.kernels.hooks")
    assert result["fused_attention"] == str(checkout / "fused_attention" / "__init__.py")
    assert result["kernels"] == str(site / "kernels" / "__init__.py")
    assert "fused_attention.kernels.hooks" not in result["error"]


def test_pytest_in_a_checkout_does_not_shadow_kernels(from_nothing, checkout):
    python, site = from_nothing
    test = checkout / "tests" / "kernels" / "test_whose.py"
    test.parent.mkdir(exist_ok=True)
    test.write_text(
        "import fused_attention, kernels\n\n"
        f"def test_whose(): assert kernels.__file__ == {str(site / 'kernels/__init__.py')!r}\n",
        encoding="utf-8",
    )
    command = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", test)
    assert "1 passed" in run(*command, cwd=checkout, TRITON_INTERPRET="0")


def test_our_folders_are_reached_through_the_package_alone():
    for name in ("kernels", "benchmarks"):
        assert os.readlink(ROOT / "fused_attention" / name) == f"../{name}"
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_lock_pins_exactly_and_satisfies_what_the_package_asks_for(wheel):
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = {}
    for requirement in (Requirement(line) for line in lines if not line.startswith("#")):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        pins[requirement.name.replace("_", "-").lower()] = specifier.version
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    asked = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    assert {"torch", "triton", "numpy", "ruff", "hypothesis"} <= {r.name for r in asked}
    for requirement in asked:
        assert requirement.name in pins, f"{requirement.name} is missing from requirements.lock"
        assert pins[requirement.name] in requirement.specifier


def test_version_is_read_without_importing(wheel):
    tree = ast.parse((ROOT / "fused_attention" / "__init__.py").read_text(encoding="utf-8"))
    (version,) = (
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__"
    )
    assert wheel.name.startswith(f"fused_attention-{version}-py3-none-any")
