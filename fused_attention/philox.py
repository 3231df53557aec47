"""Random bits for dropout in PyTorch: Philox4x32-10 (Salmon et al. 2011), keyed by position.

Whether a weight is dropped depends on (seed, batch, head, row, key) only, not on the tile size or
the backend.  `kernels/dropout.py` computes the same function in Triton.
"""

import torch

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF

# A weight is kept if its 24 random bits, as a number, are at least the threshold.  This resolves
# dropout_p to 6e-8, and is exact for 0 and 1.
_BITS = 24


def threshold(dropout_p: float) -> int:
    """The 24-bit number below which a weight is dropped."""
    return round(dropout_p * (1 << _BITS))


def inverse_keep(dropout_p: float) -> float:
    """The factor of kept weights, 1 / (1 - dropout_p); 0 if no weight is kept."""
    return 1 / (1 - dropout_p) if dropout_p < 1 else 0.0


def new_seed(device: torch.device) -> torch.Tensor:
    """A seed drawn from the device's default generator: int64, shape (1,)."""
    return torch.randint(0, 2**62, (1,), dtype=torch.int64, device=device)


def keep(seed: torch.Tensor, b, h, row, key, dropout_p: float) -> torch.Tensor:
    """True where a weight is kept.

    ``b, h, row, key``: int64 tensors that broadcast; ``key`` runs along the last dimension in
    steps of one from a multiple of four, since one Philox call yields the bits of four keys.
    """
    length = key.shape[-1]
    words = philox(seed, key[..., ::4] // 4, row, h, b)
    bits = torch.stack(words, -1).flatten(-2)[..., :length]
    return (bits >> (32 - _BITS)) >= threshold(dropout_p)


def philox(seed: torch.Tensor, c0, c1, c2, c3) -> tuple[torch.Tensor, ...]:
    """Four words of 32 random bits (as int64) for every 128-bit counter."""
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return torch.broadcast_tensors(c0, c1, c2, c3)


def _multiply(constant: int, word: torch.Tensor):
    """High and low 32 bits of the product of 32-bit words; int64 wraps, which keeps all bits."""
    product = constant * word
    return (product >> 32) & _LOW, product & _LOW
