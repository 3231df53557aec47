"""The integer tensors of a step: slot mapping, block table, positions and lengths.

The tensors are views of buffers that are allocated once and refilled in place, so that a captured
CUDA graph replays with the values of the open step.  Buffer entries beyond the step cause no work:
their sequences have no keys and no queries, and their slots are -1.  A graph captured with more
sequences can therefore replay steps with fewer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .page_tables import Seq


class StepTensors:
    """Buffers for steps of up to ``max_seqs`` sequences and ``max_tokens`` new tokens."""

    def __init__(self, max_seqs: int, max_pages: int, max_tokens: int, device: torch.device):
        def zeros(*shape, dtype=torch.int32):
            return torch.zeros(shape, dtype=dtype, device=device)

        self.block_table = zeros(max_seqs, max_pages)
        self.seq_lens = zeros(max_seqs)
        self.cu_seqlens_q = zeros(max_seqs + 1)
        self.last = zeros(max_seqs, dtype=torch.int64)
        self.positions = zeros(max_tokens, dtype=torch.int64)
        self.slot_mapping = zeros(max_tokens, dtype=torch.int64).fill_(-1)
        self._filled = 0  # entries in use of positions and slot_mapping

    def fill(
        self, seqs: Sequence[Seq], counts: Sequence[int], page_size: int, num_blocks: int
    ) -> dict[str, torch.Tensor]:
        """The tensors, by name, of a step that adds ``counts[i]`` tokens to ``seqs[i]``.

        Raises ValueError, and changes no buffer, if a block table has a block outside the pool.
        """
        lengths = np.array([seq.length for seq in seqs], np.int64)
        new = np.array(counts, np.int64)
        cu = np.concatenate([[0], np.cumsum(new)])
        table = _table(seqs, num_blocks)
        row = np.repeat(np.arange(len(seqs)), new)
        positions = np.arange(cu[-1]) + (lengths - cu[:-1])[row]
        slots = table[row, positions // page_size] * page_size + positions % page_size
        total = len(slots)

        self.block_table[: len(seqs), : table.shape[1]].copy_(
            self._host(table.astype(np.int32)), non_blocking=True
        )
        self._refill(self.seq_lens, (lengths + new).astype(np.int32), 0)
        self._refill(self.cu_seqlens_q, cu.astype(np.int32), total)
        self._refill(self.last, cu[1:] - 1, 0)
        self.positions[total : self._filled] = 0
        self.slot_mapping[total : self._filled] = -1
        self.positions[:total].copy_(self._host(positions), non_blocking=True)
        self.slot_mapping[:total].copy_(self._host(slots), non_blocking=True)
        self._filled = total
        return {
            "block_table": self.block_table[: len(seqs)],
            "seq_lens": self.seq_lens[: len(seqs)],
            "cu_seqlens_q": self.cu_seqlens_q[: len(seqs) + 1],
            "last": self.last[: len(seqs)],
            "positions": self.positions[:total],
            "slot_mapping": self.slot_mapping[:total],
        }

    def _refill(self, buffer: torch.Tensor, values: np.ndarray, rest: int) -> None:
        """Fill a buffer with ``values``, then ``rest``; it is small enough to copy whole."""
        whole = np.full(len(buffer), rest, values.dtype)
        whole[: len(values)] = values
        buffer.copy_(self._host(whole), non_blocking=True)

    def _host(self, values: np.ndarray) -> torch.Tensor:
        """``values`` as a CPU tensor, pinned if the buffers are on a GPU.

        PyTorch does not reuse pinned memory before a pending copy has read it.
        """
        tensor = torch.from_numpy(values)
        return tensor.pin_memory() if self.seq_lens.is_cuda else tensor


def _table(seqs: Sequence[Seq], num_blocks: int) -> np.ndarray:
    """The block tables, (sequences, most pages of a sequence), int64, padded with block 0."""
    table = np.zeros((len(seqs), max(map(len, (seq.blocks for seq in seqs)), default=0)), np.int64)
    for row, seq in zip(table, seqs, strict=True):
        row[: len(seq.blocks)] = seq.blocks
    if table.size and not 0 <= table.min() <= table.max() < num_blocks:
        raise ValueError(
            f"block table: expected blocks from 0 to {num_blocks - 1}, "
            f"got {table.min()} to {table.max()}"
        )
    return table
