"""Where numbers come from: machine, software, code, command."""

import contextlib
import hashlib
import os
import platform
import shlex
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import psutil

import fused_attention

PACKAGE = Path(__file__).parent
# The package without benchmarks/, and the files of benchmarks/ that measure. kernels/ is a symlink
# in a checkout, which ** does not follow.
PACKAGE_FILES = ("**/*.py", "kernels/**/*.py")
MEASURING_FILES = (
    *(f"benchmarks/harness/{name}.py" for name in ("errors", "memory", "timing")),
    *(
        f"benchmarks/studies/**/{name}.py"
        for name in ("errors", "inputs", "problem", "providers", "variants", "worker")
    ),
)
BUSY_SAMPLE_S = 0.5
LIBRARIES = ("torch", "triton", "numpy", "scipy", "pandas", "matplotlib")


def fingerprint(machine: dict) -> dict:
    """What must be equal for two results to be compared: code, torch, device."""
    return {
        "code": code_digest(),
        "torch": metadata.version("torch"),
        "triton": _version("triton"),
        "python": platform.python_version(),
        "device_name": machine["device_name"],
        "threads": machine["threads"],
    }


def code_digest() -> str:
    """A hash of the source files that a measurement depends on: other code, other results."""
    root = Path(fused_attention.__file__).parent
    digest = hashlib.sha256()
    for path in measured_files(root):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def measured_files(root: Path) -> list[Path]:
    """The source files below the package that a measurement depends on."""
    package = {path for pattern in PACKAGE_FILES for path in root.glob(pattern)}
    package = {path for path in package if path.relative_to(root).parts[0] != "benchmarks"}
    return sorted(package | {path for pattern in MEASURING_FILES for path in root.glob(pattern)})


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def collect(
    command: list[str],
    device: str,
    machine: dict,
    seed: int,
    conventions: dict[str, str],
) -> dict:
    """What is known when a run starts; clocks and loads are those of this moment."""
    return {
        "started": now(),
        "command": shown_command(command),
        "seed": seed,
        "device": device,
        "device_name": machine["device_name"],
        "package": {"version": fused_attention.__version__, "code": code_digest(), **git_state()},
        "software": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
            **{name: _version(name) for name in LIBRARIES},
        },
        "cpu": _cpu(machine),
        "gpu": _gpu(machine) if device == "cuda" else None,
        "conventions": conventions,
    }


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def shown_command(arguments: list[str]) -> str:
    """The command as a reader would type it: paths are relative to the working directory."""
    return shlex.join(["python", "-m", "benchmarks", *map(_shown, arguments)])


def _shown(word: str) -> str:
    flag, equals, path = word.rpartition("=")
    if not os.path.isabs(path):
        return word
    inside = os.path.relpath(path)
    return flag + equals + (os.path.basename(path) if inside.startswith("..") else inside)


def git_state() -> dict:
    """Commit and dirty flag; None where no repository tracks this file."""
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name)
    if tracked is None:
        return {"commit": None, "dirty": None}
    return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(_git("status", "--porcelain"))}


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(PACKAGE.resolve()), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def device_facts(device: str) -> dict:
    """What only a process that has used the device can tell; called in a child."""
    import torch

    told = {"threads": torch.get_num_threads(), "interop_threads": torch.get_num_interop_threads()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        torch.zeros(1, device="cuda").item()
        told |= {
            "device_name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
        }
    return told


def _cpu(machine: dict) -> dict:
    frequency = None
    with contextlib.suppress(OSError, NotImplementedError):
        frequency = psutil.cpu_freq()
    return {
        "name": cpu_name(),
        "architecture": platform.machine(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "threads_used": machine["threads"],
        "mhz": frequency and {"current": frequency.current, "max": frequency.max},
        "memory_bytes": psutil.virtual_memory().total,
        "memory_available_bytes": psutil.virtual_memory().available,
        "load_average": psutil.getloadavg(),
        "busy_percent": psutil.cpu_percent(interval=BUSY_SAMPLE_S),
    }


def _gpu(machine: dict) -> dict:
    """What torch knows of the GPU, and what NVML adds where it can be read."""
    import torch

    told = {name: machine[name] for name in machine if name not in ("threads", "interop_threads")}
    told |= {"cuda": torch.version.cuda, "hip": torch.version.hip}
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:
        return {**told, "nvml": f"not readable: {error}"}
    try:
        return {**told, **_nvml(pynvml)}
    finally:
        pynvml.nvmlShutdown()


def _nvml(nvml) -> dict:
    handle = nvml.nvmlDeviceGetHandleByIndex(_first_visible())
    graphics, memory = nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM
    readings = {
        "driver": lambda: nvml.nvmlSystemGetDriverVersion(),
        "power_cap_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
        "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, graphics),
        "sm_mhz_max": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, graphics),
        "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, memory),
        "memory_mhz_max": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, memory),
        "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        "throttle_bits": lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        "memory_used_bytes": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used,
    }
    told = {}
    for name, read in readings.items():
        try:
            told[name] = read()
        except nvml.NVMLError as error:
            told[name] = f"not readable: {error}"
    return told


def _first_visible() -> int:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return int(first) if first.isdigit() else 0
