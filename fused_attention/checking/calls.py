"""The calls of attention at which a variant is checked: small shapes, with seeded random scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..variants.base import Shape, Variant

# batch, heads, seqlen_q, seqlen_k: one of everything, decoding, lengths that are odd, unequal in
# either direction, and longer than a tile.
SIZES = (
    (1, 1, 1, 1),
    (2, 4, 7, 13),
    (2, 4, 13, 7),
    (3, 2, 1, 19),
    (2, 2, 33, 33),
    (1, 2, 40, 150),
    (1, 2, 150, 40),
)
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Call:
    """A variant at a shape; the tensors are on the CPU unless the call has been moved."""

    variant: Variant
    shape: Shape

    @property
    def scores(self) -> tuple[int, int, int, int]:
        """The size of the scores."""
        return self.shape[:4]

    @property
    def at(self) -> tuple:
        """The index arguments of a twin for all scores."""
        batch, _, rows, keys = self.scores
        return self.shape.indices(slice(0, batch), slice(0, rows), slice(0, keys))

    @property
    def kv_heads(self) -> int:
        heads = self.shape.num_heads
        return heads // 2 if heads % 2 == 0 else heads

    def random(self, stream: int, *size: int) -> torch.Tensor:
        """Standard normal numbers in fp32, of the size of the scores by default."""
        generator = torch.Generator().manual_seed(1000 * sum(self.scores) + stream)
        numbers = torch.randn(size or self.scores, generator=generator)
        return numbers.to(self.shape.device)

    def double(self) -> Call:
        """The same call with floating arguments in fp64."""
        return self.map(lambda x: x.double() if x.is_floating_point() else x)

    def to(self, device: torch.device) -> Call:
        moved = self.map(lambda x: x.to(device))
        return Call(moved.variant, self.shape._replace(device=device))

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Call:
        """The same call with ``function`` applied to the tensors of the variant."""
        args = (function(x) if isinstance(x, torch.Tensor) else x for x in self.variant.args)
        return Call(Variant(self.variant.type, tuple(args)), self.shape)

    def __str__(self) -> str:
        batch, heads, rows, keys = self.scores
        return f"batch {batch}, heads {heads}, queries {rows}, keys {keys}"


def calls(
    variant: Variant | Callable[[Shape], Variant], sizes: Sequence[Sequence[int]]
) -> tuple[list[Call], dict[str, str]]:
    """The calls at ``sizes``, and why the variant's own check refuses the others, by shape.

    Raises TypeError if there is no variant, ValueError if its check refuses every shape.
    """
    made, refused = [], {}
    for size in sizes:
        shape = Shape(*size, _CPU)
        call = Call(_variant(variant, shape), shape).map(lambda x: x.detach().cpu())
        check = call.variant.type.check
        try:
            if check is not None:
                check(call.variant.args, shape)
        except (TypeError, ValueError) as error:
            refused[f"at {call}"] = f"the variant's check refuses it: {error}"
            continue
        made.append(call)
    if not made:
        reasons = "; ".join(f"{where}: {why}" for where, why in refused.items())
        raise ValueError(
            "variant: expected one that fits some of the shapes, or a function of the shape that "
            f"makes one; {reasons}"
        )
    return made, refused


def _variant(variant, shape: Shape) -> Variant:
    if not isinstance(variant, Variant):
        if not callable(variant):
            raise TypeError(
                f"variant: expected a Variant, or a function of the shape that makes one, "
                f"got {type(variant).__name__}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            variant = variant(shape)
    if not isinstance(variant, Variant):
        raise TypeError(
            f"variant: expected a function that makes a Variant, got {type(variant).__name__} of it"
        )
    return variant
