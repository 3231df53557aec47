"""Providers that misbehave in every way the harness must survive, named as module:function."""

import os
import signal
import time

import psutil
import torch

from benchmarks.studies.attention.providers import PreparedCall, Workload

MIB = 2**20
ALLOCATED = 200 * MIB


def _does(action) -> PreparedCall:
    def call(q, k, v):
        action()
        return q * 1

    return PreparedCall(call)


def quick(workload: Workload) -> PreparedCall:
    return _does(lambda: None)


def sleeps(workload: Workload) -> PreparedCall:
    return _does(lambda: time.sleep(60))


def exits(workload: Workload) -> PreparedCall:
    return _does(lambda: os._exit(3))


def crashes(workload: Workload) -> PreparedCall:
    return _does(lambda: os.kill(os.getpid(), signal.SIGSEGV))


def is_killed(workload: Workload) -> PreparedCall:
    return _does(lambda: os.kill(os.getpid(), signal.SIGKILL))


def raises(workload: Workload) -> PreparedCall:
    raise ValueError("no such luck\nsecond line")


def refuses(workload: Workload) -> PreparedCall:
    raise NotImplementedError("only on Tuesdays")


def runs_out(workload: Workload) -> PreparedCall:
    raise MemoryError


def asks_too_much(workload: Workload) -> PreparedCall:
    return _does(lambda: torch.ones(2**50))


def asks_for_nearly_everything(workload: Workload) -> PreparedCall:
    """The memory is never written, so it takes none where it is granted."""
    return _does(
        lambda: torch.empty(int(0.97 * psutil.virtual_memory().available), dtype=torch.uint8)
    )


def allocates(workload: Workload) -> PreparedCall:
    return _does(lambda: torch.ones(ALLOCATED, dtype=torch.uint8))


def holds_a_mask(workload: Workload) -> PreparedCall:
    mask = torch.ones(ALLOCATED, dtype=torch.uint8)
    return PreparedCall(lambda q, k, v: q * 1, tensors=(mask,))


def is_not_a_number(workload: Workload) -> PreparedCall:
    return PreparedCall(lambda q, k, v: (q + k.sum() + v.sum()) * float("nan"))


def quick_until_1024(workload: Workload) -> PreparedCall:
    return runs_out(workload) if workload.shape.seq_q >= 1024 else quick(workload)
