"""What the command line says, checked before anything is written: text in, plain values out."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..studies.attention import variants
from ..studies.attention.point import MODES

MAX_SIZE = 2**24
DTYPES = ("float16", "bfloat16", "float32", "float64")
DTYPE_ALIASES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}
DEFAULT_HEADS, DEFAULT_HEAD_DIM = 8, 64


class BadOption(Exception):
    """An option that cannot be obeyed; names it and says what was expected."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}")


@dataclass(frozen=True)
class ModelPreset:
    """The attention of a well-known model."""

    heads: int
    kv_heads: int
    head_dim: int
    variant: str
    seq_lens: tuple[int, ...]


MODELS = {
    "gpt2": ModelPreset(12, 12, 64, "causal", (128, 256, 512, 1024)),
    "bert-base": ModelPreset(12, 12, 64, "full", (64, 128, 256, 512)),
    "llama3-8b": ModelPreset(32, 8, 128, "causal", (512, 1024, 2048, 4096, 8192)),
    "vit-b16": ModelPreset(12, 12, 64, "full", (197, 577, 1025)),  # 224, 384 and 512 pixels
}


def seq_lens(text: str) -> tuple[int, ...]:
    return sizes("--seq-lens", text)


def sizes(option: str, text: str) -> tuple[int, ...]:
    """`256,512` or a range of doublings `256..8192`, or both, joined by commas."""
    found = set()
    for part in text.split(","):
        first, dots, last = (word.strip() for word in part.partition(".."))
        bounds = [first, last] if dots else [first]
        if not all(word.isascii() and word.isdigit() for word in bounds):
            raise BadOption(option, f"expected sizes such as 256,512 or 256..8192, got '{part}'")
        start, stop = int(first), int(bounds[-1])
        if not 1 <= start <= stop <= MAX_SIZE:
            raise BadOption(option, f"expected 1 <= size <= {MAX_SIZE}, rising, got '{part}'")
        while start <= stop:
            found.add(start)
            start *= 2
    return tuple(sorted(found))


def variant_specs(text: str) -> tuple[str, ...]:
    return _known("--variants", text, variants.parse)


def provider_names(text: str) -> tuple[str, ...]:
    from ..studies.attention import providers

    return _known("--providers", text, providers.find)


def op_names(text: str) -> tuple[str, ...]:
    from ..studies.ops import table

    return _known("--ops", text, table.find)


def op_provider_names(text: str) -> tuple[str, ...]:
    from ..studies.ops import providers

    return _known("--providers", text, providers.find)


def decode_provider_names(text: str) -> tuple[str, ...]:
    from ..studies.decode import providers

    return _known("--providers", text, providers.find)


def kv_dtypes(text: str) -> tuple[str, ...]:
    from ..studies.decode.point import KV_DTYPES

    aliases = {**DTYPE_ALIASES, "fp8": "float8_e4m3fn"}
    names = (aliases.get(name, name) for name in _listed("--kv-dtypes", text))
    return tuple(dict.fromkeys(one_of("--kv-dtypes", name, KV_DTYPES) for name in names))


def groups(text: str, heads: int) -> tuple[int, ...]:
    found = counts("--groups", text)
    for group in found:
        if heads % group:
            raise BadOption("--groups", f"expected divisors of --heads {heads}, got {group}")
    return found


def page_sizes(text: str) -> tuple[int, ...]:
    found = counts("--page-sizes", text)
    for page_size in found:
        if page_size % 16:
            raise BadOption("--page-sizes", f"expected multiples of 16, got {page_size}")
    return found


def counts(option: str, text: str) -> tuple[int, ...]:
    """Positive numbers in the order given: the first has a meaning of its own."""
    items = _listed(option, text)
    for item in items:
        if not (item.isascii() and item.isdigit() and 1 <= int(item) <= MAX_SIZE):
            raise BadOption(option, f"expected numbers from 1 to {MAX_SIZE}, got '{item}'")
    return tuple(map(int, items))


def model_provider_names(text: str) -> tuple[str, ...]:
    from ..studies.model.point import PROVIDERS

    return tuple(one_of("--providers", name, PROVIDERS) for name in _listed("--providers", text))


def tasks(text: str) -> tuple[str, ...]:
    from ..studies.model.point import TASKS

    return tuple(one_of("--tasks", task, TASKS) for task in _listed("--tasks", text))


def shape(text: str) -> str:
    from ..studies.model.point import SHAPES

    return one_of("--shape", text, tuple(SHAPES))


def model_dtype(text: str) -> str:
    """A paged cache has no float64."""
    return one_of("--dtype", dtype(text), ("float16", "bfloat16", "float32"))


def modes(text: str, known: tuple[str, ...] = MODES) -> tuple[str, ...]:
    return tuple(one_of("--mode", mode, known) for mode in _listed("--mode", text))


def dtype(text: str) -> str:
    return one_of("--dtype", DTYPE_ALIASES.get(text, text), DTYPES)


def model(text: str) -> ModelPreset:
    return MODELS[one_of("--model", text, tuple(MODELS))]


def one_of(option: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise BadOption(option, f"expected one of {', '.join(known)}, got '{text}'")
    return text


def at_least(option: str, value: int | float, minimum: int | float) -> int | float:
    if not minimum <= value < float("inf"):
        raise BadOption(option, f"expected at least {minimum}, got {value}")
    return value


def seed(value: int) -> int:
    if not 0 <= value < 2**63:
        raise BadOption("--seed", f"expected 0 <= seed < 2**63, got {value}")
    return value


def device(text: str) -> str:
    import torch

    one_of("--device", text, ("auto", "cpu", "cuda"))
    found = torch.cuda.is_available()
    if text == "cuda" and not found:
        raise BadOption("--device", "cuda was asked for, but torch finds no CUDA device")
    return text if text != "auto" else "cuda" if found else "cpu"


def heads(known: ModelPreset | None, count: int | None, kv_count: int | None) -> tuple[int, int]:
    """Query and key heads: as given, else the model's, else 8 of each."""
    if count is None:
        count = known.heads if known else DEFAULT_HEADS
        kv_count = known.kv_heads if known and kv_count is None else kv_count
    at_least("--heads", count, 1)
    kv_count = count if kv_count is None else at_least("--kv-heads", kv_count, 1)
    if count % kv_count:
        raise BadOption("--kv-heads", f"expected a divisor of --heads {count}, got {kv_count}")
    return count, kv_count


def head_dim(known: ModelPreset | None, size: int | None) -> int:
    if size is None:
        return known.head_dim if known else DEFAULT_HEAD_DIM
    return at_least("--head-dim", size, 1)


def out_dir(path: Path) -> Path:
    """Makes the folder and proves that it can be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise BadOption("--out", f"cannot write to {path}: {error.strerror}") from None


def _known(option: str, text: str, find: Callable[[str], object]) -> tuple[str, ...]:
    """The items of a list, each of which `find` accepts."""
    items = _listed(option, text)
    for item in items:
        try:
            find(item)
        except ValueError as error:
            raise BadOption(option, str(error)) from None
    return items


def _listed(option: str, text: str) -> tuple[str, ...]:
    items = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(items):
        raise BadOption(option, f"expected a comma-separated list, got '{text}'")
    return items
