"""Data parallelism: one process, or as many as `torchrun` started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Processes:
    """This process, and how many train together."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes."""
        if self.count == 1:
            return module
        return DistributedDataParallel(module, broadcast_buffers=False)  # they are constants

    def mean(self, value: torch.Tensor) -> float:
        """Over the processes."""
        if self.count > 1:
            dist.all_reduce(value)
        return value.item() / self.count

    def from_first(self, value):
        """The value of the first process, in all of them."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]


@contextlib.contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Set up by the environment variables of `torchrun`; NCCL on CUDA, gloo elsewhere."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        yield Processes(0, 1, torch.device(device))
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count, torch.device(device))
    finally:
        dist.destroy_process_group()
