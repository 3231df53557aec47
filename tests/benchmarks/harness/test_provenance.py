import json
import os
import platform
import socket
import sys
import types

import pytest
import torch

import fused_attention
from benchmarks.harness import provenance
from benchmarks.studies.scaling.run import CONVENTIONS

FACTS = {"device_name": "Fake H100", "threads": 4, "interop_threads": 2, "capability": "9.0"}
COMMAND = ["scaling", "--seq-lens", "256..512"]


def flat(content, prefix=""):
    for name, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def test_a_cpu_run_knows_its_machine_software_code_and_command():
    found = provenance.collect(COMMAND, "cpu", FACTS, 7, CONVENTIONS)
    assert found["command"] == "python -m benchmarks scaling --seq-lens 256..512"
    assert found["seed"] == 7
    assert found["device_name"] == "Fake H100"
    assert found["gpu"] is None
    assert found["package"]["version"] == fused_attention.__version__
    assert found["software"]["torch"] == torch.__version__
    assert found["software"]["python"] == platform.python_version()
    for name in ("name", "logical_cores", "memory_bytes", "threads_used", "load_average"):
        assert found["cpu"][name], name
    assert "2.5 times that backward" in found["conventions"]["tflops"]
    assert "causal mask counts half" in found["conventions"]["tflops"]
    json.dumps(found, allow_nan=False)


def test_the_commit_is_that_of_this_checkout():
    state = provenance.git_state()
    head = provenance._git("rev-parse", "HEAD")
    if head is None:
        assert state == {"commit": None, "dirty": None}
    else:
        assert state["commit"] == head
        assert isinstance(state["dirty"], bool)


def test_a_repository_that_merely_surrounds_the_package_is_not_its_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    assert provenance.git_state() == {"commit": None, "dirty": None}


def test_nothing_private_is_stored():
    words = [*COMMAND, "--out", os.path.join(os.path.expanduser("~"), "secret", "results")]
    text = json.dumps(provenance.collect([*words, f"--out={os.getcwd()}/x"], "cpu", FACTS, 0, {}))
    assert socket.gethostname() not in text or len(socket.gethostname()) < 4
    assert os.path.expanduser("~") + os.sep not in text
    assert os.getcwd() not in text
    assert "--out results --out=x" in text


def test_other_code_is_another_fingerprint(monkeypatch, tmp_path):
    package = tmp_path / "fused_attention"
    (package / "ops").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    op = package / "ops" / "attention.py"
    op.write_text("x = 1")
    monkeypatch.setattr(fused_attention, "__file__", str(package / "__init__.py"))
    first = provenance.code_digest()
    assert provenance.code_digest() == first
    op.write_text("x = 2")
    assert provenance.code_digest() != first


def test_a_change_in_a_nested_file_is_another_fingerprint(monkeypatch, tmp_path):
    package = tmp_path / "fused_attention"
    op = package / "ops" / "attention" / "forward.py"
    op.parent.mkdir(parents=True)
    op.write_text("x = 1")
    monkeypatch.setattr(fused_attention, "__file__", str(package / "__init__.py"))
    first = provenance.code_digest()
    op.write_text("x = 2")
    assert provenance.code_digest() != first


def test_the_digest_covers_kernels_variants_and_the_measuring_code():
    root = provenance.Path(fused_attention.__file__).parent
    covered = {path.relative_to(root).as_posix() for path in provenance.measured_files(root)}
    assert {"variants/causal.py", "testing/op_case.py"} <= covered
    assert any(path.startswith("kernels/") for path in covered)
    studies = "benchmarks/studies"
    assert {path for path in covered if path.startswith("benchmarks/")} == {
        *(f"benchmarks/harness/{name}.py" for name in ("errors", "memory", "timing")),
        *(f"{studies}/attention/{name}.py" for name in ("worker", "providers", "inputs")),
        *(f"{studies}/attention/{name}.py" for name in ("errors", "variants")),
        *(f"{studies}/ops/{name}.py" for name in ("worker", "providers")),
        *(f"{studies}/decode/{name}.py" for name in ("worker", "providers", "problem")),
        f"{studies}/model/worker.py",
    }


class FakeNvml(types.ModuleType):
    """NVML on a GPU that does not report its power."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self):
        super().__init__("pynvml")
        self.open = 0

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index):
        return f"card {index}"

    def nvmlSystemGetDriverVersion(self):
        return "580.1"

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return 700_000

    def nvmlDeviceGetPowerUsage(self, handle):
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetClockInfo(self, handle, clock):
        return {1: 1980, 2: 3201}[clock]

    nvmlDeviceGetMaxClockInfo = nvmlDeviceGetClockInfo

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return 40

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return 1

    def nvmlDeviceGetMemoryInfo(self, handle):
        return types.SimpleNamespace(used=123)


def test_a_gpu_run_adds_driver_clocks_and_power(monkeypatch):
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    gpu = provenance.collect(COMMAND, "cuda", FACTS, 0, {})["gpu"]
    assert gpu["driver"] == "580.1"
    assert (gpu["sm_mhz"], gpu["memory_mhz"], gpu["power_cap_w"]) == (1980, 3201, 700.0)
    assert gpu["power_w"] == "not readable: Not Supported"
    assert (gpu["capability"], gpu["device_name"]) == ("9.0", "Fake H100")
    assert {"throttle_bits", "temperature_c", "memory_used_bytes", "cuda"} <= set(gpu)
    assert nvml.open == 0


def test_a_gpu_run_without_nvml_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpu = provenance.collect(COMMAND, "cuda", FACTS, 0, {})["gpu"]
    assert gpu["nvml"].startswith("not readable: ")


@pytest.mark.parametrize(("visible", "index"), [("2,0", 2), ("", 0), ("GPU-1234", 0)])
def test_the_card_is_the_first_visible_one(monkeypatch, visible, index):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert provenance._first_visible() == index
