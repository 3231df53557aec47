"""Runs one function in a fresh process: a crash, a hang and lack of memory become results.

Processes are forked from a server that has imported torch but owns no tensor and no device. One
starts in milliseconds, where the import takes seconds.
"""

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

OOM_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
# The first is imported, with sympy, by the first backward pass of a process: too slow to repeat.
PRELOADED = ("torch.fx.experimental.symbolic_shapes", "fused_attention")
EXIT_GRACE_S = 5.0
# The compiler of torch would start a pool of processes in each child.
COMPILE_THREADS = "1"
PR_SET_PDEATHSIG = 1


class Unsupported(Exception):
    """Raised by a provider that cannot do what is asked; the message says why."""


class CannotRun(Exception):
    """A run that cannot begin; the message says why in one line."""


@dataclass(frozen=True)
class Outcome:
    status: str
    value: object = None
    reason: str | None = None
    seconds: float = 0.0


def default_start_method() -> str:
    return "forkserver" if sys.platform == "linux" else "spawn"


def run(target: str, payload: object, timeout: float, method: str) -> Outcome:
    """Calls `target`, module.function below `benchmarks`, on the payload; never raises for it."""
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([*PRELOADED])
    receiver, sender = context.Pipe(duplex=False)
    with receiver, tempfile.NamedTemporaryFile() as log:
        process = context.Process(target=_child, args=(target, payload, sender, log.name))
        started = time.monotonic()
        _start(process)
        sender.close()
        try:
            ready = wait([receiver, process.sentinel], timeout)
            outcome = _receive(receiver) if receiver in ready else None
            if ready:
                process.join(EXIT_GRACE_S)
        finally:
            _kill(process)
        seconds = time.monotonic() - started
        if outcome is None:
            outcome = (
                _post_mortem(process.exitcode, Path(log.name).read_text(errors="replace"))
                if ready
                else Outcome("timeout", reason=f"no result within {timeout:g} s")
            )
    return Outcome(outcome.status, outcome.value, outcome.reason, seconds)


def _start(process) -> None:
    """Holds interrupts back until the process runs: half a request would break the fork server."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _receive(receiver) -> Outcome | None:
    try:
        return receiver.recv()
    except EOFError:
        return None


def _kill(process) -> None:
    """Ends the process and whatever it started, such as a compiler."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _post_mortem(exitcode: int, log: str) -> Outcome:
    """The outcome of a process that ended without an answer."""
    if exitcode == -signal.SIGKILL:
        return Outcome("oom", reason="killed by the system, as happens when memory runs out")
    how = signal.Signals(-exitcode).name if exitcode < 0 else f"exit code {exitcode}"
    reason = ": ".join(filter(None, [f"died without a result ({how})", _line(log, -1)]))
    is_oom = any(sign in log.lower() for sign in OOM_SIGNS)
    return Outcome("oom" if is_oom else "error", reason=reason)


def _line(text: str, index: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[index][:300] if lines else ""


def _child(target: str, payload: object, sender, log_path: str) -> None:
    os.setpgid(0, 0)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", COMPILE_THREADS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with open(log_path, "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sender.send(_attempt(target, payload))
    sender.close()


def _attempt(target: str, payload: object) -> Outcome:
    try:
        module, _, function = target.rpartition(".")
        module = importlib.import_module(f"..{module}", __package__)
        return Outcome("ok", getattr(module, function)(payload))
    except (Unsupported, NotImplementedError) as error:
        return Outcome("unsupported", reason=_line(str(error), 0))
    except MemoryError as error:
        return Outcome("oom", reason=_line(str(error), 0) or "MemoryError")
    except Exception as error:
        text = ": ".join(filter(None, [type(error).__name__, _line(str(error), 0)]))
        return Outcome("oom" if ran_out(error) else "error", reason=text)


def has_memory_for(call: Callable[[], object]) -> bool:
    """Whether the call fits in memory. It is made once, which also loads what it needs."""
    try:
        call()
    except (MemoryError, RuntimeError) as error:
        if ran_out(error):
            return False
        raise
    return True


def ran_out(error: Exception) -> bool:
    """Whether the error says that memory ran out."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in OOM_SIGNS)
