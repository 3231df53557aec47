"""Sizes and options of all models, in one configuration."""

from dataclasses import dataclass

from ..modules.mlp import GATED, PLAIN
from ..ops.rotary.scaling import RotaryScaling
from ..variants.sliding_window import MAX_WINDOW

CHOICES = {
    "position": ("learned", "sinusoidal", "rotary", "alibi", "t5", "xl", "none"),
    "norm": ("layer", "rms"),
    "activation": (*PLAIN, *GATED),
}
DIVISORS = {"num_kv_heads": "num_heads", "patch_size": "image_size"}
POSITIVE = ("dim", "num_layers", "hidden_dim", "max_seq_len", *DIVISORS, *DIVISORS.values())


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes and options of a model.

    Args:
        dim: channels.
        num_layers: blocks; of `Seq2Seq` in the encoder and in the decoder each.
        num_heads: query heads, a divisor of dim unless head_dim is given.
        head_dim: dim / num_heads by default.
        num_kv_heads: a divisor of num_heads (grouped queries, Ainslie et al. 2023, arXiv
            2305.13245); num_heads by default.
        hidden_dim: channels inside the feed-forward layer; 4 * dim by default.
        vocab_size: token ids are below it.  `ViT` has none.
        max_seq_len: the longest sequence; "alibi", "t5" and "none" have no limit.
        position: "learned", "sinusoidal", "rotary", "alibi", "t5" or "none", each cited in
            `positions`; "xl" for `TransformerXL` alone.
        prenorm: normalize the input of every layer and the last output (Xiong et al. 2020, arXiv
            2002.04745); False: every residual sum (post-norm, Vaswani et al. 2017).
        norm, norm_eps: "layer" or "rms", and its epsilon.
        activation: "gelu" (erf), "gelu_tanh", "relu", or gated "swiglu", "geglu", "geglu_tanh".
        bias: whether projections and LayerNorms have one.
        tied: use the embedding as output projection (Press and Wolf 2017, arXiv 1608.05859).
        scale_embeddings: multiply embeddings by sqrt(dim) (Vaswani et al. 2017, section 3.4).
        embedding_norm: normalize the sum of the embeddings, as BERT does.
        num_token_types: kinds of segments, such as BERT's two sentences.
        dropout: of the output of each layer, before it is added to the residual.
        embedding_dropout: of the sum of the embeddings; ``dropout`` by default.
        attention_dropout: of the attention weights.
        window: keys before itself that a token of a causal model sees (Beltagy et al. 2020, arXiv
            2004.05150); all by default.
        rotary_base, rotary_scaling: of "rotary", see `rotary_tables`.
        num_buckets, max_distance: of "t5".
        image_size, patch_size, channels, num_classes: of `ViT`, in pixels; square.

    Raises ValueError, naming the field, for options that do not fit together.
    """

    dim: int
    num_layers: int
    num_heads: int
    head_dim: int | None = None
    num_kv_heads: int | None = None
    hidden_dim: int | None = None
    vocab_size: int | None = None
    max_seq_len: int = 1024
    position: str = "learned"
    prenorm: bool = True
    norm: str = "layer"
    norm_eps: float = 1e-5
    activation: str = "gelu"
    bias: bool = True
    tied: bool = True
    scale_embeddings: bool = False
    embedding_norm: bool = False
    num_token_types: int = 0
    dropout: float = 0.0
    embedding_dropout: float | None = None
    attention_dropout: float = 0.0
    window: int | None = None
    rotary_base: float = 10000.0
    rotary_scaling: RotaryScaling | None = None
    num_buckets: int = 32
    max_distance: int = 128
    image_size: int = 224
    patch_size: int = 16
    channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        got = vars(self)
        for name, default in (("num_kv_heads", self.num_heads), ("hidden_dim", 4 * self.dim)):
            if got[name] is None:
                object.__setattr__(self, name, default)
        for name, known in CHOICES.items():
            _expect(got[name] in known, name, f"one of {', '.join(known)}", repr(got[name]))
        for name in POSITIVE:
            _expect(got[name] >= 1, name, "a positive int", got[name])
        if self.head_dim is None:
            holds = self.dim % self.num_heads == 0
            _expect(holds, "num_heads", f"a divisor of dim, {self.dim}", self.num_heads)
            object.__setattr__(self, "head_dim", self.dim // self.num_heads)
        _expect(self.head_dim >= 1, "head_dim", "a positive int", self.head_dim)
        for name in ("dropout", "embedding_dropout", "attention_dropout"):
            _expect(0 <= (got[name] or 0) <= 1, name, "0 to 1", got[name])
        for part, whole in DIVISORS.items():
            holds = got[whole] % got[part] == 0
            _expect(holds, part, f"a divisor of {whole}, {got[whole]}", got[part])
        window = self.window
        _expect(window is None or window >= 0, "window", "None, 0 or more", window)
        _expect(window is None or window <= MAX_WINDOW, "window", "None, or at most 2**30", window)
        if self.position == "rotary":
            _expect(self.head_dim % 2 == 0, "head_dim", "an even one to turn", self.head_dim)
        if self.position in ("sinusoidal", "xl"):
            _expect(self.dim % 2 == 0, "dim", f"an even one for {self.position}", self.dim)
        if self.position == "t5":
            buckets, distance = self.num_buckets, self.max_distance
            _expect(buckets >= 4 and buckets % 4 == 0, "num_buckets", "a multiple of 4", buckets)
            _expect(
                2 * distance > buckets, "max_distance", "more than half of num_buckets", distance
            )

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


def _expect(holds: bool, name: str, expected: str, got) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {got}")
