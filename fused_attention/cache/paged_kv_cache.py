"""A paged KV cache: sequences grow, share pages and are freed without moving keys or values.

Paged attention: Kwon et al. 2023, arXiv 2309.06180.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import torch

from ..ops.paged.append import paged_append
from ..ops.paged.attention import paged_attention
from ..ops.paged.copy_blocks import copy_blocks
from ..variants import Variant, sliding_window
from ..variants import causal as causal_mask
from ..variants.base import as_variants
from ..variants.sliding_window import MAX_WINDOW
from .block_pool import BlockPool, check_int
from .page_tables import PageTables, Seq
from .step_tensors import StepTensors

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_QUANTIZED = (torch.int8, torch.float8_e4m3fn)
_PAGE_MULTIPLE = 16  # a tile of keys, 16 at least, must divide a page


class PagedKVCache:
    """A paged KV cache for all layers of a model.

    Inside a `step`, the model calls `attend` in place of its attention::

        cache = fa.PagedKVCache(layers, kv_heads, head_dim, num_blocks=1024, max_seqs=8,
                                max_seq_len=4096)
        seqs = [cache.new() for _ in prompts]
        with cache.step(seqs, [len(p) for p in prompts]) as step:
            logits = model(torch.cat(prompts), step)     # calls cache.attend(i, q, k, v, step)
        next_tokens = logits[step.last].argmax(-1)

    Args:
        num_layers, num_kv_heads, head_dim: of the model; head_dim from 1 to 256.
        num_blocks: blocks in the pool; a block holds a page of ``page_size`` tokens.
        page_size: tokens of a page, a multiple of 16.
        dtype: of q, k and v: fp32, fp16 or bf16.
        kv_dtype: dtype in which keys and values are stored: ``dtype`` (the default), a narrower
            floating dtype whose numbers ``dtype`` represents exactly (bf16 under fp32, for
            example), int8 or float8_e4m3fn.
        kv_scales: for int8 and fp8: (num_layers, 2, num_kv_heads), fp32; the keys and the values
            of a head are divided by their scale when stored.  By default every token and head has
            a scale, computed when it is written, which costs 4 bytes per head_dim bytes stored.
            NaN and infinities are read back as NaN.
        window: a query sees itself and the ``window`` keys before it, at most 2**30; `attend`
            applies ``sliding_window(window)``.  Pages that no later query can see are released
            when the sequence's next step begins.
        prefix_cache: enable prefix caching: reuse a page for a sequence whose tokens are the same
            up to the end of the page.
        max_seqs: the most sequences in one step.
        max_seq_len: the most tokens of one sequence, at most 2**31 - 1.
        device: of all tensors.

    The blocks of layer ``i`` are ``kv[i]``, (num_blocks, 2, page_size, num_kv_heads, head_dim),
    keys before values; the scales of layer ``i`` are ``scales[i]``, None unless ``kv_dtype`` is
    int8 or float8_e4m3fn.

    Raises:
        ValueError, TypeError: an argument out of range, or of the wrong type.
        NotImplementedError: a ``kv_dtype`` other than those above.
    """

    def __init__(
        self,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        num_blocks: int,
        page_size: int = 64,
        dtype: torch.dtype = torch.bfloat16,
        kv_dtype: torch.dtype | None = None,
        kv_scales: torch.Tensor | None = None,
        window: int | None = None,
        prefix_cache: bool = False,
        max_seqs: int,
        max_seq_len: int,
        device: torch.device | str | None = None,
    ) -> None:
        num_layers = check_int("num_layers", num_layers, 1)
        num_kv_heads = check_int("num_kv_heads", num_kv_heads, 1)
        head_dim = check_int("head_dim", head_dim, 1, 256)
        num_blocks = check_int("num_blocks", num_blocks, 1)
        page_size = check_int("page_size", page_size, 1)
        max_seqs = check_int("max_seqs", max_seqs, 1)
        max_seq_len = check_int("max_seq_len", max_seq_len, 1, 2**31 - 1)  # lengths are int32
        if page_size % _PAGE_MULTIPLE:
            raise ValueError(f"page_size: expected a multiple of {_PAGE_MULTIPLE}, got {page_size}")
        if window is not None:
            window = check_int("window", window, 0, MAX_WINDOW)
        kv_dtype = dtype if kv_dtype is None else kv_dtype
        _check_dtypes(dtype, kv_dtype)
        _check_scales(kv_scales, kv_dtype, (num_layers, 2, num_kv_heads))
        self.num_layers, self.num_kv_heads, self.head_dim = num_layers, num_kv_heads, head_dim
        self.page_size, self.window, self.dtype = page_size, window, dtype
        self.max_seqs, self.max_seq_len = max_seqs, max_seq_len
        self._tables = PageTables(num_blocks, page_size, max_seq_len, window, prefix_cache)
        self.device = torch.empty(0, device=device).device
        self._open: Step | None = None

        def pages(*shape, dtype):
            size = (num_blocks, 2, page_size, num_kv_heads, *shape)
            return [torch.empty(size, dtype=dtype, device=self.device) for _ in range(num_layers)]

        self.kv = pages(head_dim, dtype=kv_dtype)
        self.scales: list[torch.Tensor | None] = [None] * num_layers
        self._token_scales = kv_dtype in _QUANTIZED and kv_scales is None
        if self._token_scales:
            self.scales = pages(dtype=torch.float32)
        elif kv_scales is not None:
            self.scales = list(kv_scales.to(self.device, copy=True))
        # Every new token needs its own slot, so the slots of the pool bound the tokens of a step.
        max_tokens = min(num_blocks * page_size, max_seqs * max_seq_len)
        max_pages = -(-max_seq_len // page_size)
        self._tensors = StepTensors(max_seqs, max_pages, max_tokens, self.device)

    @property
    def pool(self) -> BlockPool:
        """The pool with the reference counts of all blocks; ``pool.num_free`` blocks are free."""
        return self._tables.pool

    def new(self, tokens: Sequence[int] | torch.Tensor | None = None) -> Seq:
        """A new sequence, empty unless a prefix of ``tokens`` is cached.

        With ``prefix_cache``, ``tokens`` are the first tokens of the sequence, of which
        ``seq.length`` are cached already: feed ``tokens[seq.length:]``.  The last token is always
        left to be fed, since its output must be computed.  After a successful step, other
        sequences can reuse the full pages of ``tokens`` that the step has filled.
        """
        self._check_no_step("new")
        return self._tables.new(None if tokens is None else _token_list(tokens, self.max_seq_len))

    def fork(self, seq: Seq) -> Seq:
        """A copy of ``seq`` that continues independently; shared pages are copied on write."""
        self._check_no_step("fork")
        return self._tables.fork(seq)

    def truncate(self, seq: Seq, length: int) -> None:
        """Remove all but the first ``length`` tokens, for example rejected speculative tokens.

        With a window, ``length`` can always be 0, or at least the length before the sequence's last
        step.  Other lengths raise ValueError if their window reaches into released pages.
        """
        self._check_no_step("truncate")
        self._tables.truncate(seq, length)

    def free(self, seq: Seq) -> None:
        """Release the pages of ``seq``, which must not be used afterwards."""
        self._check_no_step("free")
        self._tables.free(seq)

    def step(self, seqs: Sequence[Seq], n_new: int | Sequence[int]) -> Step:
        """A `Step` that adds ``n_new`` tokens to each of ``seqs``: one number, or one per sequence.

        Use the step as a context manager.  Entering it allocates all blocks; if too few are free,
        it raises `OutOfBlocks` and changes nothing: free a sequence or add fewer tokens, and try
        again.  If the body raises, the step is undone.  Otherwise the tokens are in the cache, and
        the keys and values of every layer must have been written: by `attend`, or else as declared
        by `Step.mark_written`.  If a layer is missing, leaving the block undoes the step too and
        raises RuntimeError.  A step without new tokens has nothing to write.
        """
        return Step(self, seqs, n_new)

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        step: Step,
        variants: Variant | Sequence[Variant] = (),
        *,
        scale: float | None = None,
        causal: bool = True,
        num_splits: int | None = None,
        return_lse: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Write the new keys and values of one layer, and attend to them and all earlier ones.

        Each layer must be attended in each step with new tokens.  A second call for the same layer
        overwrites what the first one wrote.  A call that a CUDA graph captures writes nothing yet,
        and a replay does not run this method: see `Step.mark_written`.

        Args:
            layer: from 0 to num_layers - 1.
            q: (tokens, heads, head_dim), the new tokens of all sequences, in the order of
                ``step.seqs``; num_kv_heads divides heads.
            k, v: (tokens, num_kv_heads, head_dim).
            step: the open step.
            variants: further variants of attention, for which ``step.seqs`` are the batch.
            scale: of the scores; 1 / sqrt(head_dim) by default.
            causal: whether a causal mask applies; must be True if the cache has a window.
            num_splits, return_lse: as for `paged_attention`.

        Returns:
            (tokens, heads, head_dim), and with ``return_lse`` the LSE, (tokens, heads).

        Raises:
            ValueError, TypeError: arguments that do not fit the cache or the step.
            RuntimeError: ``step`` is not the open step of this cache.
        """
        layer = check_int("layer", layer, 0, self.num_layers - 1)
        self._check_tensors(q, k, v, step)
        variants = as_variants(variants)
        if self.window is not None:
            if not causal:
                raise ValueError("causal: expected True where the cache has a window, got False")
            variants = (*variants, sliding_window(self.window))
        elif causal:
            variants = (*variants, causal_mask())
        kv, scales = self.kv[layer], self.scales[layer]
        paged_append(k, v, kv, step.slot_mapping, scales)
        attended = paged_attention(
            *(q, kv, step.block_table, step.seq_lens, step.cu_seqlens_q, variants),
            scale=scale,
            scales=scales,
            max_seqlen_q=max(1, step.max_seqlen_q),
            num_splits=num_splits,
            return_lse=return_lse,
        )
        captured = q.is_cuda and torch.cuda.is_current_stream_capturing()
        if not captured:  # while a CUDA graph is captured, nothing runs
            step._written.add(layer)
        return attended

    def check(self) -> None:
        """Verify the bookkeeping; raises RuntimeError naming the inconsistency."""
        self._tables.check()

    def _check_no_step(self, what: str) -> None:
        if self._open is not None:
            raise RuntimeError(f"{what}: a step is open; end it first")

    def _check_open(self, step) -> None:
        if step is not self._open or step is None:
            raise RuntimeError("step: expected the step of this cache that is open")

    def _check_tensors(self, q, k, v, step) -> None:
        self._check_open(step)
        for name, x in (("q", q), ("k", k), ("v", v)):
            if not isinstance(x, torch.Tensor):
                raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
            if x.dtype != self.dtype:
                raise TypeError(f"{name}: expected the cache's dtype {self.dtype}, got {x.dtype}")
            if x.device != self.device:
                raise ValueError(f"{name}: expected the cache's {self.device}, got {x.device}")
            heads = self.num_kv_heads if name != "q" else x.shape[1] if x.ndim == 3 else "heads"
            if tuple(x.shape) != (step.num_tokens, heads, self.head_dim):
                expected = f"({step.num_tokens}, {heads}, {self.head_dim})"
                raise ValueError(f"{name}: expected shape {expected}, got {tuple(x.shape)}")
        if q.shape[1] == 0 or q.shape[1] % self.num_kv_heads:
            raise ValueError(
                f"q: expected a multiple of {self.num_kv_heads} heads, got {q.shape[1]}"
            )


class Step:
    """New tokens of some sequences; made by `PagedKVCache.step`, valid inside its ``with`` block.

    Attributes:
        seqs: the sequences, in the order of their tokens.
        n_new: the number of new tokens of each sequence.
        num_tokens: the number of new tokens of all sequences.
        max_seqlen_q: the most new tokens of one sequence.
        positions: (tokens,) int64, the position of each new token in its sequence, from 0.
        last: (seqs,) int64, the index of each sequence's last new token; undefined for a sequence
            without new tokens.
        slot_mapping: (tokens,) int64, block * page_size + offset of each new token.
        block_table: (seqs, max_pages) int32, the block of each page.
        seq_lens: (seqs,) int32, the number of keys of each sequence, including the new ones.
        cu_seqlens_q: (seqs + 1,) int32, the index at which each sequence's new tokens begin, and
            ``num_tokens`` at the end.

    The tensors are views of buffers that the next step overwrites.
    """

    def __init__(self, cache: PagedKVCache, seqs: Sequence[Seq], n_new: int | Sequence[int]):
        if not isinstance(seqs, Sequence):
            raise TypeError(f"seqs: expected a list of sequences, got {type(seqs).__name__}")
        if not isinstance(n_new, (Integral, Sequence)):
            raise TypeError(f"n_new: expected an int or a list of them, got {type(n_new).__name__}")
        self.seqs = list(seqs)
        self.n_new = [n_new] * len(self.seqs) if isinstance(n_new, Integral) else list(n_new)
        self._cache = cache

    def __enter__(self) -> Step:
        cache = self._cache
        cache._check_no_step("step")
        if len(self.seqs) > cache.max_seqs:
            raise ValueError(
                f"seqs: expected at most max_seqs = {cache.max_seqs}, got {len(self.seqs)}"
            )
        self._taken = cache._tables.reserve(self.seqs, self.n_new)
        self.n_new = self._taken.counts
        try:
            self._prepare()
        except BaseException:
            cache._tables.cancel(self._taken)
            raise
        self._written: set[int] = set()  # layers
        cache._open = self
        return self

    def __exit__(self, kind, error, trace) -> None:
        cache = self._cache
        cache._open = None
        layers = range(cache.num_layers) if self.num_tokens else ()
        missing = [layer for layer in layers if layer not in self._written]
        if kind is None and not missing:
            cache._tables.commit(self._taken)
            return
        cache._tables.cancel(self._taken)
        if kind is None:
            raise RuntimeError(
                f"step: undone, since layers were not attended: {', '.join(map(str, missing))}; "
                "call cache.attend for every layer, or step.mark_written() if the keys and values "
                "were written without it"
            )

    def mark_written(self) -> None:
        """Declare that the keys and values of all layers have been written without `attend`.

        Call it after replaying a CUDA graph of `attend`, or after `paged_append` to every layer of
        the cache.

        Raises RuntimeError if the step is not open.
        """
        self._cache._check_open(self)
        self._written.update(range(self._cache.num_layers))

    def _prepare(self) -> None:
        """Fill the tensors, and copy the shared pages that will be written (copy-on-write)."""
        cache = self._cache
        self.num_tokens, self.max_seqlen_q = sum(self.n_new), max(self.n_new, default=0)
        filled = cache._tensors.fill(self.seqs, self.n_new, cache.page_size, cache.pool.num_blocks)
        self.block_table, self.seq_lens = filled["block_table"], filled["seq_lens"]
        self.cu_seqlens_q, self.slot_mapping = filled["cu_seqlens_q"], filled["slot_mapping"]
        self.positions, self.last = filled["positions"], filled["last"]
        if self._taken.copies:
            pairs = torch.tensor(self._taken.copies, dtype=torch.int64, device=cache.device)
            for layer in range(cache.num_layers):
                copy_blocks(cache.kv[layer], pairs)
                if cache._token_scales:
                    copy_blocks(cache.scales[layer], pairs)


def _check_dtypes(dtype, kv_dtype) -> None:
    if dtype not in _DTYPES:
        raise TypeError(f"dtype: expected float32, float16 or bfloat16, got {dtype}")
    narrower = [x for x in _DTYPES if torch.promote_types(dtype, x) == dtype]
    if kv_dtype not in (*narrower, *_QUANTIZED):
        raise NotImplementedError(
            f"kv_dtype: expected {dtype} or one it can hold, int8 or float8_e4m3fn, got {kv_dtype}"
        )


def _check_scales(kv_scales, kv_dtype, shape: tuple[int, ...]) -> None:
    if kv_scales is None:
        return
    if kv_dtype not in _QUANTIZED:
        raise ValueError(f"kv_scales: expected None for kv_dtype {kv_dtype}, which needs none")
    if not isinstance(kv_scales, torch.Tensor) or kv_scales.dtype != torch.float32:
        got = kv_scales.dtype if isinstance(kv_scales, torch.Tensor) else type(kv_scales).__name__
        raise TypeError(f"kv_scales: expected a tensor of float32, got {got}")
    if tuple(kv_scales.shape) != shape:
        raise ValueError(f"kv_scales: expected shape {shape}, got {tuple(kv_scales.shape)}")
    if not bool(((kv_scales > 0) & (kv_scales < math.inf)).all()):
        raise ValueError("kv_scales: expected positive finite numbers")


def _token_list(tokens, most: int) -> list[int]:
    if isinstance(tokens, torch.Tensor):
        if tokens.ndim != 1 or tokens.dtype not in (torch.int64, torch.int32):
            raise TypeError(
                f"tokens: expected int64 or int32 of one dimension, got {tokens.dtype} of "
                f"{tokens.ndim}"
            )
        tokens = tokens.tolist()
    tokens = [check_int("tokens", token, -(2**63), 2**63 - 1) for token in tokens]
    if len(tokens) > most:
        raise ValueError(f"tokens: expected at most max_seq_len = {most}, got {len(tokens)}")
    return tokens
