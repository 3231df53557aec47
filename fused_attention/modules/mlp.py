"""The feed-forward network of a transformer block."""

from functools import partial

import torch
from torch import nn

from ..ops.activation.gelu import gelu
from ..ops.activation.glu import geglu, swiglu

PLAIN = {"gelu": gelu, "gelu_tanh": partial(gelu, approximate="tanh"), "relu": torch.relu}
GATED = {"geglu": geglu, "geglu_tanh": partial(geglu, approximate="tanh"), "swiglu": swiglu}


class MLP(nn.Module):
    """``down(activation(up(x)))``, or gated ``down(activation(gate) * up)``.

    Args:
        embed_dim: size of the input and the output.
        hidden_dim: size between the two projections; ``4 * embed_dim`` by default.
        activation: "gelu" (exact), "gelu_tanh", "relu", or gated "geglu" (exact), "geglu_tanh",
            "swiglu".
        bias: whether the two projections have a bias.

    ``up.weight`` is (hidden_dim, embed_dim).  In a gated MLP it is (2 * hidden_dim, embed_dim): the
    rows of the gate, to which the activation applies, before those of ``up``.  Shazeer 2020,
    arXiv 2002.05202.

    Raises ValueError for an unknown activation.
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int | None = None,
        activation: str = "gelu",
        bias: bool = True,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        if activation not in (*PLAIN, *GATED):
            known = ", ".join((*PLAIN, *GATED))
            raise ValueError(f"activation: expected one of {known}, got {activation!r}")
        hidden_dim = 4 * embed_dim if hidden_dim is None else hidden_dim
        self.activation = activation
        widths = 2 if activation in GATED else 1
        self.up = nn.Linear(embed_dim, widths * hidden_dim, bias, device, dtype)
        self.down = nn.Linear(hidden_dim, embed_dim, bias, device, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.up(x)
        if self.activation in GATED:
            return self.down(GATED[self.activation](*h.chunk(2, -1)))
        return self.down(PLAIN[self.activation](h))

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}"
