"""Models from files on disk."""

from __future__ import annotations

import json
from pathlib import Path

from .families import family_of
from .hf_config import Options
from .pretrained import Pretrained


def load(path: str | Path, config=None, *, ignore: tuple[str, ...] = ()):
    """The `GPT`, `BERT` or `ViT` of a .safetensors file that transformers wrote.

    Args:
        path: of the file.
        config: a transformers configuration, what its config.json holds, or the path of that;
            by default the config.json beside the file.
        ignore: how the keys begin that are not needed.

    Raises:
        ImportError: safetensors is not installed.
        OSError: a file is not there.
        ValueError, NotImplementedError: as `from_hf_state_dict`, or a file of another kind.
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
    models = {model.__name__: model for model in Pretrained.__subclasses__()}
    model = models[family_of(Options(config)).model]
    return model.from_hf_state_dict(load_file(path), config, ignore=ignore)
