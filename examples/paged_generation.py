"""Text generation with a paged cache: several answers to one prompt share its pages, rejected
drafts are truncated, and a second request finds the prompt in the prefix cache.

    python examples/paged_generation.py

The model is small and its weights are random, so the text is noise; the use of memory is real.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

import fused_attention as fa


class CachedAttention(nn.Module):
    """Causal attention with its keys and values in a `fa.PagedKVCache`."""

    def __init__(self, layer: int, hidden: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, hidden // heads
        self.split = (heads, kv_heads, kv_heads)
        self.project = nn.Linear(hidden, sum(self.split) * self.head_dim)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x, cache, step):
        heads = self.project(x).unflatten(-1, (-1, self.head_dim))  # (tokens, all heads, head_dim)
        q, k, v = heads.split(self.split, dim=1)
        return self.out(cache.attend(self.layer, q, k, v, step).flatten(1))


class SmallTransformer(nn.Module):
    """A pre-norm transformer on a ragged batch: the tokens of all sequences end to end."""

    def __init__(self, vocab_size=256, hidden=128, heads=8, kv_heads=2, layers=2, max_len=512):
        super().__init__()
        self.cache_sizes = {
            "num_layers": layers,
            "num_kv_heads": kv_heads,
            "head_dim": hidden // heads,
        }
        self.embedding = nn.Embedding(vocab_size, hidden)
        self.position = nn.Embedding(max_len, hidden)
        self.attention = nn.ModuleList(
            CachedAttention(layer, hidden, heads, kv_heads) for layer in range(layers)
        )
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2 * layers + 1))
        self.head = nn.Linear(hidden, vocab_size, bias=False)

    @torch.no_grad()
    def forward(self, tokens, cache, step):
        """Logits (tokens, vocab_size) of token ids (tokens,)."""
        x = self.embedding(tokens) + self.position(step.positions)
        norms = iter(self.norms)
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x = x + attention(next(norms)(x), cache, step)
            x = x + mlp(next(norms)(x))
        return self.head(next(norms)(x))


class Generator:
    """Generation from a model with a cache."""

    def __init__(self, model: SmallTransformer, cache: fa.PagedKVCache, seed: int) -> None:
        self.model, self.cache = model, cache
        self.random = torch.Generator(cache.device).manual_seed(seed)

    def feed(self, seqs, tokens: list[list[int]]) -> torch.Tensor:
        """Append ``tokens[i]`` to ``seqs[i]``; returns the logits after each token."""
        flat = torch.tensor([t for each in tokens for t in each], device=self.cache.device)
        with self.cache.step(seqs, [len(each) for each in tokens]) as step:
            return self.model(flat, self.cache, step)

    def sample(self, logits: torch.Tensor) -> list[int]:
        return torch.multinomial(logits.softmax(-1), 1, generator=self.random).flatten().tolist()

    def answers(self, prompt: list[int], count: int, length: int):
        """Sample ``count`` continuations of one prompt, which is computed and stored once."""
        first = self.cache.new(prompt)
        last = self.feed([first], [prompt[first.length :]])[-1:]
        seqs = [first, *(self.cache.fork(first) for _ in range(count - 1))]
        sequences = [[token] for token in self.sample(last.expand(count, -1))]
        for _ in range(length - 1):
            logits = self.feed(seqs, [tokens[-1:] for tokens in sequences])
            for tokens, token in zip(sequences, self.sample(logits), strict=True):
                tokens.append(token)
        return seqs, sequences

    def speculate(self, seq, last: int, draft: list[int]) -> list[int]:
        """Verify a draft of the greedy continuation of ``last`` in one step.

        Returns the accepted tokens of the draft, and the one that follows them.
        """
        length = seq.length
        best = self.feed([seq], [[last, *draft]]).argmax(-1).tolist()
        accepted = 0
        while accepted < len(draft) and draft[accepted] == best[accepted]:
            accepted += 1
        self.cache.truncate(seq, length + 1 + accepted)
        return best[: accepted + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prompt", type=int, default=200, help="tokens of the prompt")
    parser.add_argument("--answers", type=int, default=8, help="sampled continuations")
    parser.add_argument("--length", type=int, default=40, help="tokens of each")
    parser.add_argument("--page-size", type=int, default=16, help="tokens in a page")
    args = parser.parse_args()

    torch.manual_seed(0)
    longest = args.prompt + args.length + 16
    model = SmallTransformer(max_len=longest).to(args.device)
    cache = fa.PagedKVCache(
        **model.cache_sizes,
        num_blocks=-(-longest // args.page_size) * (args.answers + 2),
        page_size=args.page_size,
        dtype=torch.float32,
        prefix_cache=True,
        max_seqs=args.answers,
        max_seq_len=longest,
        device=args.device,
    )
    generator = Generator(model, cache, seed=1)
    prompt = torch.randint(256, (args.prompt,)).tolist()

    started = time.perf_counter()
    seqs, sequences = generator.answers(prompt, args.answers, args.length)
    seconds = time.perf_counter() - started
    different = len(set(map(tuple, sequences)))
    print(f"{args.answers} answers of {args.length} tokens to a prompt of {args.prompt}:")
    print(f"  {args.answers * args.length / seconds:,.0f} tokens/s, {different} different")
    report(cache, seqs)

    for seq in seqs[1:]:
        cache.free(seq)
    print("\nspeculation, a draft of 4 tokens of which 2 are right:")
    check_speculation(generator, seqs[0], sequences[0][-1])
    cache.free(seqs[0])

    print("\nthe same prompt again, after all answers are gone:")
    again = cache.new(prompt)
    print(
        f"  {again.length} of {len(prompt)} tokens found, {len(prompt) - again.length} to compute"
    )
    cache.free(again)
    print(f"  blocks free in the end: {cache.pool.num_free} of {cache.pool.num_blocks}")


def report(cache: fa.PagedKVCache, seqs) -> None:
    """Print the blocks in use, and how many they would be if sequences shared nothing."""
    used = cache.pool.num_blocks - cache.pool.num_free
    pages = sum(-(-seq.length // cache.page_size) for seq in seqs)
    room = len(seqs) * -(-cache.max_seq_len // cache.page_size)
    print(f"  blocks of {cache.page_size} tokens: {used} used")
    print(f"  {pages} with a prompt for every answer, {room} in a contiguous cache of full length")


def check_speculation(generator: Generator, seq, last: int) -> None:
    """Print whether speculation finds the tokens that decoding one by one does."""
    cache = generator.cache
    plain, trial, token, greedy = cache.fork(seq), cache.fork(seq), last, []
    for _ in range(3):
        token = generator.feed([plain], [[token]])[-1].argmax().item()
        greedy.append(token)
    wrong = (greedy[2] + 1) % 256
    found = generator.speculate(trial, last, [*greedy[:2], wrong, wrong])
    print(
        f"  one by one {greedy}, speculating {found}: {'equal' if found == greedy else 'DIFFERENT'}"
    )
    print(f"  kept {trial.length - seq.length} of 5 new tokens in the cache")
    cache.free(plain)
    cache.free(trial)


if __name__ == "__main__":
    main()
