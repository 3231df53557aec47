"""The benchmarks of fused ops."""

from .mutation import torch

RIVALRY = (
    torch(
        "torch always timed second",
        "benchmarks/timing.py",
        "    if number % 2 == 0:\n",
        "    if True:\n",
        "benchmarks/test_ops.py::test_rivals_take_turns_in_going_first",
    ),
    torch(
        "the gradient of one output compared alone",
        "benchmarks/ops/worker.py",
        "torch.autograd.grad(outs, leaves, self.d_outs)",
        "torch.autograd.grad(outs[-1:], leaves, self.d_outs[-1:])",
        "benchmarks/test_ops.py::test_a_wrong_op_stands_out[wrong_gradient_of_sum]",
    ),
    torch(
        "a verdict on the median alone",
        "benchmarks/ops/analysis.py",
        "UNCLEAR if point.speedup_high >= FLOOR else MISSED",
        "MISSED",
        "benchmarks/test_ops.py::test_verdicts[*unclear*]",
    ),
)
