"""Exceptions that serve users of this package and code that expects PyTorch's own."""


class ShapeError(ValueError, RuntimeError):
    """A tensor of the wrong shape: a ValueError here, a RuntimeError in PyTorch."""


class ChoiceError(ValueError, RuntimeError):
    """An argument that is none of its choices: a ValueError here, a RuntimeError in PyTorch."""


class DtypeError(TypeError, NotImplementedError):
    """A dtype not computed in: a TypeError here, a NotImplementedError in PyTorch."""
