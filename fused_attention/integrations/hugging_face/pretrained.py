"""Weights of Hugging Face's transformers, read and written without importing transformers."""

from __future__ import annotations

import re

import torch

from .families import Family
from .hf_config import HFConfig

_HEADS = ("lm_head.", "cls.", "classifier.")
_MODEL_CLASSES: dict[str, type[Pretrained]] = {}  # by model_type


class Pretrained:
    """Base class of the models that read and write the weights of transformers.

    A model class names the type of its ``config`` and the families that it reads.
    """

    config_type: type
    hf_families: tuple[Family, ...]

    def __init_subclass__(cls, **options) -> None:
        super().__init_subclass__(**options)
        for family in vars(cls).get("hf_families", ()):  # those of a base class are its own
            for model_type in family.model_types:
                _MODEL_CLASSES.setdefault(model_type, cls)

    @classmethod
    def from_hf_state_dict(cls, state_dict: dict, hf_config, *, ignore: tuple[str, ...] = ()):
        """A model with the weights and configuration of one of transformers, in evaluation mode.

        `GPT` reads GPT-2, Llama and Mistral; `BERT` reads BertModel and BertForMaskedLM, with a
        pooler and an mlm_head if their weights are there; `ViT` reads ViTForImageClassification.
        Parameters keep their dtype and device, and share no memory with the state dict.

        Args:
            state_dict: by the names of transformers 5 or earlier.
            hf_config: its configuration, or the content of its config.json.
            ignore: prefixes of keys to leave out, such as ``("cls.seq_relationship.",)``.

        Raises:
            ValueError: a model of another kind; keys that are missing, surplus or of the wrong
                shape, all of which are listed; weights that should be tied and differ.
            NotImplementedError: a configuration that our model cannot express.
        """
        config = HFConfig(hf_config)
        family = _family_of(cls, config)
        theirs = _current_names(state_dict, family, tuple(ignore))
        present = {
            module: any(key.startswith(prefix) for key in theirs)
            for module, prefix in family.optional.items()
        }
        with torch.device("meta"):
            model = cls(cls.config_type(**family.read_config(config, present)), **present)
        _check(theirs, _to_theirs(model, family), _copies(model, family))
        ours = {}
        for name, parameter in model.named_parameters():
            tensors = [_transposed(theirs[key], key, family) for key in _keys(name, family)]
            ours[name] = torch.cat(tensors).reshape(parameter.shape)
        model.load_state_dict(ours, assign=True)
        return model.to(next(iter(ours.values())).device).eval()

    def to_hf_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights, copied, by the names of transformers: inverse of `from_hf_state_dict`.

        A `GPT` becomes a GPT2LMHeadModel, LlamaForCausalLM or MistralForCausalLM, a `BERT` a
        BertForMaskedLM if it has an mlm_head and a BertModel if not, a `ViT` a
        ViTForImageClassification.  Raises NotImplementedError, naming the options of the model
        that none of them has.
        """
        family = _family_for(self)
        theirs = _to_theirs(self, family)
        for copy, original in _copies(self, family).items():
            theirs[copy] = theirs[original].clone()
        if getattr(self, "mlm_head", self) is None:
            return {name.removeprefix(family.prefix): x for name, x in theirs.items()}
        return theirs


def model_class(config: HFConfig) -> type[Pretrained]:
    """The model class that reads a configuration; NotImplementedError if there is none."""
    model_type = config["model_type"]
    if model_type not in _MODEL_CLASSES:
        raise NotImplementedError(
            f"hf_config: model_type {model_type!r} is not supported, only "
            f"{', '.join(sorted(_MODEL_CLASSES))} are"
        )
    return _MODEL_CLASSES[model_type]


def _family_of(cls: type[Pretrained], config: HFConfig) -> Family:
    """The family of a configuration; ValueError if it is one of another model class."""
    expected, model_type = model_class(config), config["model_type"]
    for family in cls.hf_families:
        if model_type in family.model_types:
            return family
    raise ValueError(f"hf_config: a {model_type} is a {expected.__name__}, not a {cls.__name__}")


def _family_for(model: Pretrained) -> Family:
    """The first family of the model's class that can express its options."""
    config, differing = model.config, []
    heads = config.num_heads
    fields = {
        **vars(config),
        "num_heads / num_kv_heads": heads / config.num_kv_heads,
        "num_heads * head_dim / dim": heads * config.head_dim / config.dim,
    }
    for family in model.hf_families:
        found = [
            f"{k} {fields[k]!r}" for k, known in family.supported.items() if fields[k] not in known
        ]
        if not found:
            return family
        differing.append(", ".join(found))
    raise NotImplementedError(
        f"to_hf_state_dict: no model of transformers has {'; none has '.join(differing)}"
    )


def _current_names(state_dict: dict, family: Family, ignore: tuple[str, ...]) -> dict:
    """The tensors by the names that a model with a head has in transformers 5."""
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
    """The keys of their parameters that make up one of ours."""
    general, layer = re.sub(r"\.\d+\.", ".{}.", name), re.search(r"\.(\d+)\.", name)
    module, _, leaf = general.rpartition(".")
    whole = general in family.names
    keys = family.names[general] if whole else [f"{key}.{leaf}" for key in family.names[module]]
    return [key.format(layer and layer[1]) for key in keys]


def _transposed(tensor: torch.Tensor, key: str, family: Family) -> torch.Tensor:
    return tensor.T if re.search(family.transposed, key) else tensor


def _to_theirs(model, family: Family) -> dict[str, torch.Tensor]:
    """The model's parameters as their tensors by their keys, without copies of tied weights."""
    theirs = {}
    for name, parameter in model.named_parameters():
        keys, tensor = _keys(name, family), parameter.detach()
        sizes = len(tensor) // len(keys)
        if ".qkv." in name and len(keys) > 1:
            config = model.config
            heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
            sizes = [count * config.head_dim for count in heads]
        for key, part in zip(keys, tensor.split(sizes), strict=True):
            part = _transposed(part, key, family)[(None,) * family.leading_dims.get(name, 0)]
            theirs[key] = part.clone(memory_format=torch.contiguous_format)
    return theirs


def _copies(model, family: Family) -> dict[str, str]:
    """Keys that repeat another because weights are tied; files may leave them out."""
    if getattr(model, "mlm_head", model) is None:
        return {}
    tied = model.config.tied
    return {copy: key for copy, key in family.copies.items() if tied or copy.endswith(".bias")}


def _check(theirs, expected, copies) -> None:
    """Raise one ValueError that lists all that is wrong with the tensors ``theirs``."""
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
