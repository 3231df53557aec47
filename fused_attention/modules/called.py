"""Makes torch's containers call our modules instead of reading their weights."""

from __future__ import annotations

import functools

from torch import nn


def always_called(kind: type[nn.Module]) -> type[nn.Module]:
    """Class decorator for a module that derives from one of torch's.

    In eval mode and without gradients, ``nn.TransformerEncoderLayer`` reads the weights of its
    attention, norms and activation and hands them to one kernel of torch's.  It does so for
    subclasses too, and would never call ours.  It does not if a module inside it has a hook, so
    every instance gets one, which does nothing.  Unlike an attribute that says something untrue
    (``_qkv_same_embed_dim``, say), a hook serves all modules, wherever they are put and whenever.
    It is pickled and copied with the module, and is no part of the state dict.
    """
    init = kind.__init__

    @functools.wraps(init)
    def init_with_hook(self, *args, **kwargs) -> None:
        init(self, *args, **kwargs)
        self.register_forward_pre_hook(_nothing)

    kind.__init__ = init_with_hook
    return kind


def _nothing(module: nn.Module, args: tuple) -> None:
    """The hook."""
