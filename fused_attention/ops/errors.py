"""Exceptions that serve users of this package and code that expects PyTorch's own."""


class ArgumentError(ValueError, RuntimeError):
    """A shape, choice or value that does not fit: a ValueError here, a RuntimeError in PyTorch."""


class DtypeError(TypeError, NotImplementedError):
    """A dtype not computed in: a TypeError here, in PyTorch a NotImplementedError or its base."""
