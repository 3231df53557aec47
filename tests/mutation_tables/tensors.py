"""Which tensors the ops read."""

from .mutation import OPS, torch


def refused(place: str) -> str:
    return f"ops/test_subclasses.py::test_every_op_refuses_them[{place}-*]"


PLAIN, SDPA = "fused_attention/plain.py", f"{OPS}attention/sdpa.py"
TENSORS = (
    torch(
        "a subclass with functions of its own read as memory",
        PLAIN,
        "return function not in inherited or dispatch",
        "return dispatch",
        refused("attention-q"),
    ),
    torch(
        "a subclass that dispatches read as memory",
        PLAIN,
        "or dispatch is not torch.Tensor.__torch_dispatch__",
        "",
        refused("layer_norm-x"),
    ),
    torch(
        "class probabilities of any subclass",
        f"{OPS}loss/checks.py",
        '    check_plain("target", target)\n    if target.shape == input.shape:',
        "    if target.shape == input.shape:",
        refused("cross_entropy, probabilities-target"),
    ),
    torch(
        "a norm's weight of any subclass",
        f"{OPS}norm/checks.py",
        "    check_plain(name, parameter)\n",
        "",
        refused("rms_norm-weight"),
    ),
    torch(
        "scales of any subclass",
        f"{OPS}paged/checks.py",
        '    check_plain("scales", scales)\n',
        "",
        refused("paged_append, int8-scales"),
    ),
    torch(
        "an argument of the user's variant of any subclass",
        "fused_attention/variants/base.py",
        "if isinstance(arg, torch.Tensor):\n                check_plain",
        "if False:\n                check_plain",
        "ops/test_subclasses.py::test_variants_of_the_user_refuse_them[*]",
    ),
    torch(
        "torch's causal biases aligned alike",
        SDPA,
        '"top_left" if upper_left else "bottom_right"',
        '"top_left"',
        "ops/test_subclasses.py::test_causal_biases_of_torch[*]",
    ),
    torch(
        "a causal bias of other lengths",
        SDPA,
        "if lengths != (q.shape[2], k.shape[2]):",
        "if False:",
        "ops/test_subclasses.py::test_a_causal_bias_of_other_lengths_is_refused",
    ),
)
