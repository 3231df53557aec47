"""Weights of Hugging Face's transformers, read and written; nothing of theirs is imported."""

from __future__ import annotations

import re

import torch

from .families import FAMILIES, Family, family_of
from .hf_config import Options

_HEADS = ("lm_head.", "cls.", "classifier.")


class Pretrained:
    """A model, with a ``config`` of ``config_type``, that can have the weights of transformers."""

    config_type: type

    @classmethod
    def from_hf_state_dict(cls, state_dict: dict, hf_config, *, ignore: tuple[str, ...] = ()):
        """A model with the weights and options of one of transformers, in evaluation mode.

        `GPT` reads GPT-2, Llama and Mistral; `BERT` reads BertModel and BertForMaskedLM, with a
        pooler and an mlm_head if there are such; `ViT` reads ViTForImageClassification.
        Parameters keep their dtype and device, and share no memory with the state dict.

        Args:
            state_dict: by the names of transformers, now or before version 5.
            hf_config: its configuration, or what its config.json holds.
            ignore: how the keys begin that are not needed, such as ``("cls.seq_relationship.",)``.

        Raises:
            ValueError: a model of another kind; keys that are missing, surplus or of the wrong
                shape, all of which are listed; weights that should be tied and differ.
            NotImplementedError: a configuration that our model cannot have.
        """
        options = Options(hf_config)
        family = family_of(options)
        if family.model not in _names(cls):
            raise ValueError(
                f"hf_config: a {options['model_type']} is a {family.model}, not a {cls.__name__}"
            )
        theirs = _named(state_dict, family, tuple(ignore))
        parts = {
            part: any(name.startswith(prefix) for name in theirs)
            for part, prefix in family.parts.items()
        }
        with torch.device("meta"):
            model = cls(cls.config_type(**family.read(options, parts)), **parts)
        _check(theirs, _written(model, family), _copies(model, family))
        ours = {}
        for name, parameter in model.named_parameters():
            tensors = [_turned(theirs[key], key, family) for key in _keys(name, family)]
            ours[name] = torch.cat(tensors).reshape(parameter.shape)
        model.load_state_dict(ours, assign=True)
        return model.to(next(iter(ours.values())).device).eval()

    def to_hf_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights by the names of transformers, copied: the way back of `from_hf_state_dict`.

        A `GPT` becomes a GPT2LMHeadModel, LlamaForCausalLM or MistralForCausalLM, a `BERT` a
        BertForMaskedLM if it has an mlm_head and a BertModel if not, a `ViT` a
        ViTForImageClassification.  Raises NotImplementedError, naming what none of them can have.
        """
        family = _family_for(self)
        written = _written(self, family)
        for copy, original in _copies(self, family).items():
            written[copy] = written[original].clone()
        if getattr(self, "mlm_head", self) is None:
            return {name.removeprefix(family.prefix): x for name, x in written.items()}
        return written


def _names(cls: type) -> list[str]:
    return [base.__name__ for base in cls.__mro__]


def _family_for(model) -> Family:
    """The first family that can have the options of a model."""
    config, differing = model.config, []
    heads = config.num_heads
    fields = {
        **vars(config),
        "num_heads / num_kv_heads": heads / config.num_kv_heads,
        "num_heads * head_dim / dim": heads * config.head_dim / config.dim,
    }
    for family in dict.fromkeys(FAMILIES.values()):
        if family.model in _names(type(model)):
            found = [
                f"{k} {fields[k]!r}" for k, known in family.needs.items() if fields[k] not in known
            ]
            if not found:
                return family
            differing.append(", ".join(found))
    raise NotImplementedError(
        f"to_hf_state_dict: no model of transformers has {'; none has '.join(differing)}"
    )


def _named(state_dict: dict, family: Family, ignore: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The tensors by the names that the model with a head has in transformers today."""
    bare = not any(key.startswith(family.prefix) for key in state_dict)
    named = {}
    for key, tensor in state_dict.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"state_dict: expected tensors, {key} is {type(tensor).__name__}")
        name = key
        for pattern, new in family.old_names:
            name = re.sub(pattern, new, name)
        name = family.prefix + name if bare and not name.startswith(_HEADS) else name
        if not (re.search(family.buffers, name) or key.startswith(ignore)):
            named[name] = tensor
    return named


def _keys(name: str, family: Family) -> list[str]:
    """The keys of theirs that make up a parameter of ours."""
    general, layer = re.sub(r"\.\d+\.", ".{}.", name), re.search(r"\.(\d+)\.", name)
    module, _, leaf = general.rpartition(".")
    whole = general in family.names
    keys = family.names[general] if whole else [f"{key}.{leaf}" for key in family.names[module]]
    return [key.format(layer and layer[1]) for key in keys]


def _turned(tensor: torch.Tensor, key: str, family: Family) -> torch.Tensor:
    return tensor.T if re.search(family.transposed, key) else tensor


def _written(model, family: Family) -> dict[str, torch.Tensor]:
    """Their tensors by their keys, but for copies."""
    written = {}
    for name, parameter in model.named_parameters():
        keys, tensor = _keys(name, family), parameter.detach()
        sizes = len(tensor) // len(keys)
        if ".qkv." in name and len(keys) > 1:
            config = model.config
            heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
            sizes = [count * config.head_dim for count in heads]
        for key, part in zip(keys, tensor.split(sizes), strict=True):
            part = _turned(part, key, family)[(None,) * family.leading.get(name, 0)]
            written[key] = part.clone(memory_format=torch.contiguous_format)
    return written


def _copies(model, family: Family) -> dict[str, str]:
    """Keys that repeat another because embeddings are tied; files may leave them out."""
    if getattr(model, "mlm_head", model) is None:
        return {}
    tied = model.config.tied
    return {copy: key for copy, key in family.copies.items() if tied or copy.endswith(".bias")}


def _check(theirs, expected, copies) -> None:
    """Raise one error that lists everything wrong with the tensors ``theirs``."""
    faults = {
        "missing keys": [key for key in expected if key not in theirs],
        "surplus keys": [key for key in theirs if key not in expected and key not in copies],
        "wrong shapes": [
            f"{key} {tuple(theirs[key].shape)}, expected {tuple(tensor.shape)}"
            for key, tensor in expected.items()
            if key in theirs and theirs[key].shape != tensor.shape
        ],
        "tied in the configuration, but different": [
            f"{copy} and {key}"
            for copy, key in copies.items()
            if copy in theirs and key in theirs and not torch.equal(theirs[copy], theirs[key])
        ],
    }
    found = [f"{fault}: {', '.join(keys)}" for fault, keys in faults.items() if keys]
    if found:
        raise ValueError(f"state_dict: {'; '.join(found)}")
