"""Pictures of attention weights, and of sinusoidal positions.

Fused kernels never hold the attention weights, so the reference computes them again from the
inputs of the model's attention, which hooks record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import torch

from . import reference
from .evaluation import evaluating
from .models.backends import AttentionCore
from .models.positions import sinusoids

MAX_LABELS = 32  # with more tokens, a map has no labels
PANEL, LABEL = 1.7, 0.12  # inches: the smallest panel, and the room for a label
COLORS = "magma_r"  # darkens evenly, so that it also prints in gray
BYTES = 256


@torch.no_grad()
def attention_weights(model, *inputs, **options) -> dict[str, torch.Tensor]:
    """The weights of every attention layer in a call ``model(*inputs, **options)``.

    Returns (batch, heads, seqlen_q, seqlen_k) by the name of the layer, in the order of the calls.
    The model is in evaluation mode meanwhile.
    """
    found: dict[str, torch.Tensor] = {}

    def record(name, core, inputs) -> None:
        q, k, v, variants = inputs
        found[name] = reference.attention(q, k, v, variants, return_weights=True).weights

    with evaluating(model), contextlib.ExitStack() as undo:
        for name, module in model.named_modules():
            if isinstance(module, AttentionCore):
                hook = partial(record, name.removesuffix(".core"))
                undo.callback(module.register_forward_pre_hook(hook).remove)
        model(*inputs, **options)
    if not found:
        raise ValueError("model: expected one of fused_attention.models, found no attention in it")
    return found


def attention_maps(
    model,
    text_or_tokens,
    path=None,
    *,
    encode: Callable[[str], Sequence[int]] | None = None,
    labels: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
):
    """A heatmap for every layer (a row) and head (a column): queries down, keys across.

    Args:
        model: one of `fused_attention.models`, whatever its ``attention``.
        text_or_tokens: text, if the model's tokens are bytes or ``encode`` is given; token ids,
            a list or a tensor (seqlen,) or (1, seqlen); images (1, ...) for `ViT`; or a tuple of
            the model's arguments, such as (source_ids, target_ids).
        path: file to write the picture to; its suffix is the format.
        encode: from text to token ids.
        labels: of the tokens, shown for up to 32 of them; by default the characters of a text of
            bytes, or the token ids.
        layers, heads: indices of those to show, in this order; all by default.

    Returns the matplotlib figure.  Colors follow the square root of the weights, so that small
    weights are visible.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError, TypeError: text without ``encode`` for tokens that are not bytes, a batch of
            more than one, layers or heads that do not exist, and the errors of the model.
    """
    figure_type = _figure_type()
    inputs, labels = _inputs(model, text_or_tokens, encode, labels)
    maps = list(attention_weights(model, *inputs).items())
    maps = [maps[i] for i in _chosen("layers", layers, len(maps))]
    columns = _chosen("heads", heads, maps[0][1].shape[1])
    if len(maps[0][1]) != 1:
        raise ValueError(f"text_or_tokens: expected a batch of 1, got {len(maps[0][1])}")

    labeled = labels is not None and len(labels) <= MAX_LABELS
    size = max(PANEL, LABEL * len(labels)) if labeled else PANEL
    figure = figure_type(
        figsize=(size * len(columns) + 1.6, size * len(maps) + 0.9), layout="constrained"
    )
    panels = figure.subplots(len(maps), len(columns), squeeze=False)
    for row, (name, weights) in zip(panels, maps, strict=True):
        for axes, head in zip(row, columns, strict=True):
            image = _heatmap(axes, weights[0, head])
            axes.set_xticks([])
            axes.set_yticks([])
        row[0].set_ylabel(_title(name), fontsize=9)
    for axes, head in zip(panels[0], columns, strict=True):
        axes.set_title(f"head {head}", fontsize=9)
    if labeled:
        _label_tokens(panels, labels)
    bar = figure.colorbar(image, ax=panels, shrink=min(1.0, 3 / (size * len(maps))), pad=0.02)
    bar.set_label("attention weight", fontsize=8)
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1])
    bar.ax.tick_params(labelsize=8)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def positional_encoding(length: int = 128, dim: int = 64, path=None):
    """Sinusoidal positions, Vaswani et al. 2017, section 3.5: positions down, channels across.

    Returns the matplotlib figure, and writes it to ``path`` if given.  Raises ImportError where
    matplotlib is missing, ValueError for a length below 1 or a dim that is odd or below 2.
    """
    figure_type = _figure_type()
    if length < 1:
        raise ValueError(f"length: expected 1 or more, got {length}")
    if dim < 2 or dim % 2:
        raise ValueError(f"dim: expected an even number, 2 or more, got {dim}")
    figure = figure_type(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(sinusoids(length, dim).numpy(), "cividis", aspect="auto", vmin=-1, vmax=1)
    axes.set_xlabel("channel (even: sine, odd: cosine; wavelengths grow to the right)")
    axes.set_ylabel("position")
    figure.colorbar(image, label="value")
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _figure_type():
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("visualize needs matplotlib: pip install matplotlib") from error
    return Figure


def _inputs(model, given, encode, labels) -> tuple[tuple, Sequence[str] | None]:
    """The arguments of the model, and the labels of the tokens."""
    if isinstance(given, tuple):
        return given, labels
    if isinstance(given, str):
        if encode is None and model.config.vocab_size != BYTES:
            raise ValueError(
                "encode: expected a function from text to token ids, as the model's vocabulary of "
                f"{model.config.vocab_size} is not the {BYTES} bytes"
            )
        if encode is None and labels is None and given.isascii():
            labels = [repr(c)[1:-1] if c != " " else "␣" for c in given]
        given = list(given.encode()) if encode is None else encode(given)
    device = next(model.parameters()).device
    given = torch.as_tensor(given, device=device)
    if given.is_floating_point():
        return (given,), labels
    given = given[None] if given.ndim == 1 else given
    if labels is None:
        labels = [str(i) for i in given[0].tolist()]
    if len(labels) != given.shape[-1]:
        raise ValueError(f"labels: expected {given.shape[-1]}, one a token, got {len(labels)}")
    return (given,), labels


def _chosen(name: str, indices: Sequence[int] | None, count: int) -> Sequence[int]:
    if indices is None:
        return range(count)
    if len(indices) == 0 or any(not 0 <= i < count for i in indices):
        raise ValueError(f"{name}: expected indices from 0 to {count - 1}, got {list(indices)}")
    return indices


def _heatmap(axes, weights: torch.Tensor):
    from matplotlib.colors import PowerNorm

    shade = PowerNorm(0.5, vmin=0, vmax=1)
    return axes.imshow(weights.float().cpu().numpy(), COLORS, norm=shade, interpolation="nearest")


def _title(name: str) -> str:
    """``decoder.blocks.1.cross`` -> ``decoder 1 cross``."""
    words = name.replace("stack.blocks", "layer").split(".")
    return " ".join(word for word in words if word not in ("blocks", "attention"))


def _label_tokens(panels, labels: Sequence[str]) -> None:
    """Label the left panels' rows and the bottom panels' columns."""
    places, upright = range(len(labels)), max(map(len, labels)) <= 2
    for axes in panels[:, 0]:
        axes.set_yticks(places, labels, fontsize=7)
    for axes in panels[-1]:
        axes.set_xticks(places, labels, fontsize=7, rotation=0 if upright else 90)
    for axes in panels.flat:
        axes.tick_params(length=0, pad=2)
