"""Measures one point of a whole model, in a process of its own."""

from collections.abc import Callable
from functools import partial

import torch

from fused_attention.models import GPT, Config
from fused_attention.objectives import next_token_loss

from ...harness import isolate, memory, timing
from .point import BASELINE, OURS, SHAPES, ModelPoint

WARM_UP_TOKENS = 16
BUDGET_S = 6.0
MAX_SEQ_LEN = 1024
TRAIN = (
    "one step on random tokens: forward, backward, AdamW; below fp32 under autocast, with weights "
    "in fp32. The loss never holds its logits, whatever the attention. Tokens a second count all "
    "that are trained on"
)
GENERATE = (
    "greedy tokens after a prompt, which is read within the time: fused from a paged cache, naive "
    "and sdpa, which have no cache here, by recomputing the whole sequence for each token. Tokens "
    "a second count the new ones alone"
)
MEMORY = "beyond weights and optimizer"
SPEEDUP = (
    "the time with naive attention over that of the provider, called in turn in one process: the "
    "median over the rounds, with the 95 % interval of that median. Tokens a second are those of "
    "naive attention times this: those of two processes do not compare"
)


def measure(point: ModelPoint) -> dict:
    """Measures peak memory of the first call at this length, then time in turns with naive."""
    on_cuda = point.device == "cuda"
    if not on_cuda:
        memory.limit_to_available()
    task = {"train": training, "generate": generation}[point.task](point)
    tokens = make_tokens(point)
    # Loads code and makes the optimizer's state, with a call too small to show in the peak.
    task(tokens if on_cuda else tokens[:, : WARM_UP_TOKENS + 1], point.provider)
    ours, rival = (partial(task, tokens, attention) for attention in (point.provider, BASELINE))
    peak = memory.peak(ours, point.device)
    alone = point.provider == BASELINE or not isolate.has_memory_for(rival)
    calls = (ours,) if alone else (ours, rival)
    rounds = timing.rounds(calls, point.device, point.repeats, "warm", BUDGET_S)
    numbers = timing.quantiles([times[0] for times in rounds])
    counted = point.seq_len if point.task == "train" else point.new_tokens
    return {
        **numbers,
        **timing.speedup(rounds, BASELINE),
        "tokens_per_s": point.batch * counted / numbers["time_ms"] * 1e3,
        **memory.columns(peak),
        "loss": peak["result"] if point.task == "train" else None,
        "threads": torch.get_num_threads(),
    }


def make_model(point: ModelPoint) -> GPT:
    torch.manual_seed(point.seed)
    config = Config(
        **SHAPES[point.shape],
        max_seq_len=max(MAX_SEQ_LEN, point.seq_len + point.new_tokens),
        activation="gelu_tanh",
    )
    return GPT(config).to(point.device)


def make_tokens(point: ModelPoint) -> torch.Tensor:
    """Random tokens, (batch, seq_len + 1)."""
    generator = torch.Generator().manual_seed(point.seed)
    vocabulary, shape = SHAPES[point.shape]["vocab_size"], (point.batch, point.seq_len + 1)
    return torch.randint(vocabulary, shape, generator=generator).to(point.device)


def training(point: ModelPoint) -> Callable[[torch.Tensor, str], float]:
    """A training step on (batch, n + 1) tokens with the attention named, which returns the loss."""
    model, dtype = make_model(point), getattr(torch, point.dtype)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step(tokens: torch.Tensor, attention: str) -> float:
        model.attention = attention
        with torch.autocast(point.device, dtype, enabled=dtype != torch.float32):
            loss = next_token_loss(model, tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def generation(point: ModelPoint) -> Callable[[torch.Tensor, str], list[list[int]]]:
    """Generation after the first n of (batch, n + 1) tokens, which returns the new ones."""
    model = make_model(point).to(getattr(torch, point.dtype)).eval()

    def generate(tokens: torch.Tensor, attention: str) -> list[list[int]]:
        model.attention = attention
        prompts = tokens[:, :-1]
        if attention == OURS:
            return model.generate(list(prompts), point.new_tokens, temperature=0)
        return recomputed(model, prompts, point.new_tokens)

    return generate


@torch.no_grad()
def recomputed(model: GPT, prompts: torch.Tensor, count: int) -> list[list[int]]:
    tokens = prompts
    for _ in range(count):
        likeliest = model.logits(model.hidden(tokens)[:, -1:]).argmax(-1)
        tokens = torch.cat([tokens, likeliest], 1)
    return tokens[:, prompts.shape[1] :].tolist()
