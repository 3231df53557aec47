"""A configuration of transformers, read strictly: unsupported values raise."""

from __future__ import annotations


class HFConfig:
    """The fields of a transformers configuration, or of its config.json."""

    def __init__(self, config) -> None:
        fields = config.to_dict() if hasattr(config, "to_dict") else config
        if not isinstance(fields, dict):
            raise TypeError(
                f"hf_config: expected a transformers config or a dict, got {type(config).__name__}"
            )
        self.fields = fields
        self.require(quantization_config=None)

    def __getitem__(self, name: str):
        if name not in self.fields:
            raise ValueError(f"hf_config: expected a field {name}, there is none")
        return self.fields[name]

    def get(self, name: str, default):
        return self.fields.get(name, default)

    def require(self, **values) -> None:
        """Raise NotImplementedError if a field that is given has another value than this."""
        for name, value in values.items():
            if self.get(name, value) != value:
                raise NotImplementedError(
                    f"hf_config: {name} {self.fields[name]!r} is not supported, only {value!r} is"
                )

    def choice(self, name: str, default: str, known: dict[str, str]) -> str:
        """The field translated by ``known``; raises NotImplementedError for another value."""
        value = self.get(name, default)
        if value not in known:
            raise NotImplementedError(
                f"hf_config: {name} {value!r} is not supported, only {', '.join(known)} are"
            )
        return known[value]
