"""Exceptions that serve users of this package and code that expects PyTorch's own."""


class ShapeError(ValueError, RuntimeError):
    """A tensor of the wrong shape: a ValueError here, a RuntimeError in PyTorch."""
