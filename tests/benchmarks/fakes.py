"""Providers that misbehave in every way the harness must survive, named as module:function."""

import os
import signal
import time

import psutil
import torch

from benchmarks.studies.attention.providers import Case, Prepared

MIB = 2**20
ALLOCATED = 200 * MIB


def _does(action) -> Prepared:
    def call(q, k, v):
        action()
        return q * 1

    return Prepared(call)


def quick(case: Case) -> Prepared:
    return _does(lambda: None)


def sleeps(case: Case) -> Prepared:
    return _does(lambda: time.sleep(60))


def exits(case: Case) -> Prepared:
    return _does(lambda: os._exit(3))


def crashes(case: Case) -> Prepared:
    return _does(lambda: os.kill(os.getpid(), signal.SIGSEGV))


def is_killed(case: Case) -> Prepared:
    return _does(lambda: os.kill(os.getpid(), signal.SIGKILL))


def raises(case: Case) -> Prepared:
    raise ValueError("no such luck\nsecond line")


def refuses(case: Case) -> Prepared:
    raise NotImplementedError("only on Tuesdays")


def runs_out(case: Case) -> Prepared:
    raise MemoryError


def asks_too_much(case: Case) -> Prepared:
    return _does(lambda: torch.ones(2**50))


def asks_for_nearly_everything(case: Case) -> Prepared:
    """Never touched, so it costs nothing where it is granted."""
    return _does(
        lambda: torch.empty(int(0.97 * psutil.virtual_memory().available), dtype=torch.uint8)
    )


def allocates(case: Case) -> Prepared:
    return _does(lambda: torch.ones(ALLOCATED, dtype=torch.uint8))


def holds_a_mask(case: Case) -> Prepared:
    mask = torch.ones(ALLOCATED, dtype=torch.uint8)
    return Prepared(lambda q, k, v: q * 1, tensors=(mask,))


def is_not_a_number(case: Case) -> Prepared:
    return Prepared(lambda q, k, v: (q + k.sum() + v.sum()) * float("nan"))


def quick_until_1024(case: Case) -> Prepared:
    return runs_out(case) if case.shape.seq_q >= 1024 else quick(case)
