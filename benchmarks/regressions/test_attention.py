"""Micro-benchmarks of the CPU path, to be compared across commits: `make bench-regressions`.

Names, shapes, seeds and the number of threads are fixed; change none of them, add new ones.
"""

import pytest
import torch

import fused_attention as fa

THREADS = 1
BATCH, HEADS, HEAD_DIM = 1, 4, 64


@pytest.fixture(autouse=True)
def one_thread(benchmark):
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    benchmark.extra_info.update(threads=THREADS, torch=torch.__version__)
    yield
    torch.set_num_threads(before)


def make_inputs(seq_len):
    generator = torch.Generator().manual_seed(0)
    size = (BATCH, HEADS, seq_len, HEAD_DIM)
    return [torch.randn(size, generator=generator) for _ in range(4)]


def measure_forward(benchmark, seq_len, variants=()):
    q, k, v, _ = make_inputs(seq_len)
    with torch.no_grad():
        benchmark(fa.attention, q, k, v, variants)


def measure_training(benchmark, seq_len, variants=()):
    *leaves, d_out = make_inputs(seq_len)
    for leaf in leaves:
        leaf.requires_grad_()

    def step():
        torch.autograd.grad(fa.attention(*leaves, variants), leaves, d_out)

    benchmark(step)


def test_forward(benchmark):
    measure_forward(benchmark, 512)


def test_forward_causal(benchmark):
    measure_forward(benchmark, 512, fa.causal())


def test_forward_of_a_short_sequence(benchmark):
    measure_forward(benchmark, 16)


def test_training(benchmark):
    measure_training(benchmark, 512)


def test_training_causal(benchmark):
    measure_training(benchmark, 512, fa.causal())


def test_training_in_a_window(benchmark):
    measure_training(benchmark, 2048, fa.sliding_window(127))


def test_training_softcapped(benchmark):
    measure_training(benchmark, 512, fa.softcap(30.0))


def test_training_with_alibi(benchmark):
    measure_training(benchmark, 512, fa.alibi(fa.alibi_slopes(HEADS)))
