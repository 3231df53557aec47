"""The attention kernels to compile, dense and paged, launched as in production."""

from __future__ import annotations

from typing import NamedTuple

from . import compiler, paged


class KernelCase(NamedTuple):
    """One attention kernel with its dtype, head_dim and variants, compiled for every target."""

    kernel: str
    dtype: str
    head_dim: int
    stack: str
    dropout_p: float = 0.0

    def __str__(self):
        dropout = "+dropout" if self.dropout_p else ""
        return f"{self.kernel}-{self.dtype}-d{self.head_dim}-{self.stack}{dropout}"


def cases() -> list[KernelCase]:
    """Every kernel with each tuned head_dim and dtype, and with stacks that use many hooks."""
    table = [
        KernelCase(kernel, dtype, head_dim, "causal")
        for dtype, head_dims in (("bfloat16", (64, 128, 256)), ("float32", (64, 128)))
        for head_dim in head_dims
        for kernel in ("forward", "dkdv", "dq")
    ]
    table += [
        KernelCase(kernel, "bfloat16", head_dim, stack, dropout_p)
        for kernel in ("forward", "dkdv", "dq")
        for head_dim, stack, dropout_p in (
            (128, "full", 0.0),
            (128, "softcap+alibi+window+padding", 0.0),
            (64, "full", 0.1),
            (80, "causal", 0.0),
        )
    ]
    table += [
        KernelCase("dbias", "bfloat16", 128, "bias"),
        KernelCase("dbias", "bfloat16", 64, "alibi+softcap"),
        KernelCase("delta", "bfloat16", 128, "full"),
    ]
    return table + [KernelCase(*row) for row in paged.ROWS]


def multiplies(case: KernelCase) -> bool:
    """Whether the kernel has matrix products."""
    return case.kernel != "delta" and (
        not case.kernel.startswith("paged") or paged.multiplies(case)
    )


def variants_of(stack: str, batch: int, heads: int, seqlen: int):
    """The variants of a stack of the table, on meta tensors."""
    import torch

    import fused_attention as fa

    named = {
        "causal": fa.causal,
        "softcap": lambda: fa.softcap(30.0),
        "alibi": lambda: fa.alibi(torch.empty(heads, device="meta")),
        "window": lambda: fa.sliding_window(256),
        "padding": lambda: fa.key_padding(torch.empty(batch, dtype=torch.int32, device="meta")),
        "bias": lambda: fa.bias(
            torch.empty(1, heads, seqlen, seqlen, dtype=torch.bfloat16, device="meta")
        ),
    }
    return [named[name]() for name in stack.split("+") if name != "full"]


def launch(case: KernelCase, target: str) -> None:
    """Call the launcher of a case, as production would, on meta tensors."""
    import torch

    if case.kernel.startswith("paged"):
        paged.launch(case, target)
        return
    from fused_attention import philox, tuning
    from fused_attention.kernels import attention_backward, attention_forward
    from fused_attention.kernels.launch import LaunchOptions
    from fused_attention.ops.attention.triton_backend import variant_stack

    batch, heads, kv_heads, seqlen, head_dim = 2, 8, 4, 4096, case.head_dim
    dtype = getattr(torch, case.dtype)

    def tensor(heads):
        return torch.empty(batch, heads, seqlen, head_dim, dtype=dtype, device="meta")

    q, o, do, dq = (tensor(heads) for _ in range(4))
    k, v, dk, dv = (tensor(kv_heads) for _ in range(4))
    lse, delta = (torch.empty(batch, heads, seqlen, device="meta") for _ in range(2))
    stats = torch.empty(batch, heads, seqlen, 2, device="meta")
    variants = variants_of(case.stack, batch, heads, seqlen)
    tuned = "dq" if case.kernel == "delta" else case.kernel
    config = tuning.config(tuned, head_dim, dtype, target)
    options = LaunchOptions(head_dim**-0.5, variant_stack(variants), config, "ieee")
    if case.dropout_p:
        options = options._replace(
            seed=torch.empty(1, dtype=torch.int64, device="meta"),
            dropout_threshold=philox.threshold(case.dropout_p),
            dropout_scale=philox.inverse_keep(case.dropout_p),
        )
    launchers = {
        "forward": lambda: attention_forward.attention_forward(q, k, v, o, lse, stats, options),
        "delta": lambda: attention_backward.attention_delta(o, do, None, delta, options.config),
        "dkdv": lambda: attention_backward.attention_dkdv(
            q, k, v, do, stats, delta, dk, dv, options
        ),
        "dq": lambda: attention_backward.attention_dq(q, k, v, do, stats, delta, dq, options),
        "dbias": lambda: attention_backward.attention_dbias(
            q, k, v, do, stats, delta, variants[0].args[0].shape, slice(0, seqlen), 0, options
        ),
    }
    launchers[case.kernel]()


def recorded_launch(case: KernelCase, target: str):
    """The kernel, arguments and keywords that the launcher of a case would launch."""
    with compiler.recorded_launches() as launches:
        launch(case, target)
    (only,) = launches
    return only


def inspect(case: KernelCase, target: str) -> compiler.Report:
    """Compile a case and read off the result."""
    return compiler.inspect_launch(case, target, recorded_launch(case, target))
