"""Models from .safetensors files."""

from __future__ import annotations

import json
from pathlib import Path

from .hf_config import HFConfig
from .pretrained import model_class


def load(path: str | Path, config=None, *, ignore: tuple[str, ...] = ()):
    """The `GPT`, `BERT` or `ViT` of a .safetensors file that transformers wrote.

    Args:
        path: of the file.
        config: a transformers configuration, the content of its config.json, or the path of
            that; by default the config.json beside the file.
        ignore: prefixes of keys to leave out.

    Raises:
        ImportError: safetensors is not installed.
        OSError: a file is not there.
        ValueError, NotImplementedError: as for `from_hf_state_dict`, or another kind of file.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path: expected a .safetensors file, got {path.name}")
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(
            "load needs safetensors: pip install 'fused-attention[pretrained]'"
        ) from error
    config = path.with_name("config.json") if config is None else config
    if isinstance(config, (str, Path)):
        config = json.loads(Path(config).read_text(encoding="utf-8"))
    model = model_class(HFConfig(config))
    return model.from_hf_state_dict(load_file(path), config, ignore=ignore)
