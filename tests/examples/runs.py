"""Training runs for tests, in this process or forked from a server with all imports done."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
if str(EXAMPLES) not in sys.path:
    sys.path.insert(0, str(EXAMPLES))

import torch  # noqa: E402
import train_gpt  # noqa: E402
from training import checkpoint  # noqa: E402

SERVER = multiprocessing.get_context("forkserver")
# Modules that are imported at the first training step or checkpoint.
SLOW_IMPORTS = (
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.fx.experimental.symbolic_shapes",
    "pydoc_data.topics",
    "rich.progress",
)
SERVER.set_forkserver_preload([*SLOW_IMPORTS, __name__])

TINY = {"context": 16, "layers": 1, "dim": 16, "heads": 2, "batch": 4, "warmup": 2, "lr": 1e-2}
BRIEF = {"steps": 8, "eval-every": 4, "save-every": 2, "device": "cpu"}


def words(out: Path, **changes) -> list[str]:
    """The command line of a tiny run."""
    given = {**TINY, **BRIEF, "out": out, **{k.replace("_", "-"): v for k, v in changes.items()}}
    return [f"--{name}={value}" for name, value in given.items()]


def train(out: Path, **changes) -> dict:
    """Train in this process; returns the checkpoint."""
    assert train_gpt.main(words(out, **changes)) == 0
    return stored(out)


def stored(out: Path) -> dict:
    return checkpoint.load(out / checkpoint.NAME)


def start(out: Path, rank=None, port=None, dtype=torch.float32, **changes):
    """Train in a process of its own; with a rank, as one of two that `torchrun` starts."""
    place = {} if rank is None else {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}
    place = place and {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    process = SERVER.Process(target=_child, args=(words(out, **changes), place, dtype))
    process.start()
    return process


def _child(given: list[str], place: dict, dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    os.environ |= {name: str(value) for name, value in place.items()}
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    torch.set_default_dtype(dtype)
    if dtype == torch.float64:  # a paged cache holds no fp64
        train_gpt.Training.sample = lambda self: ""
    sys.exit(train_gpt.main(given))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
