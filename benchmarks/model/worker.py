"""One measurement of a model, in a process of its own: a point in, plain numbers out."""

from collections.abc import Callable

import torch

from fused_attention.models import GPT, Config
from fused_attention.objectives import next_token_loss

from .. import memory, timing
from .points import OURS, SHAPES, ModelPoint

WARM_UP_TOKENS = 16
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
MEMORY = "beyond weights and optimiser"


def measure(point: ModelPoint) -> dict:
    """Peak memory in the first call at this length, then time."""
    on_cuda = point.device == "cuda"
    if not on_cuda:
        memory.limit_to_available()
    task = {"train": training, "generate": generation}[point.task](point)
    tokens = make_tokens(point)
    # Pages code in and makes the optimiser's state, on too little to hide in what is measured.
    task(tokens if on_cuda else tokens[:, : WARM_UP_TOKENS + 1])
    peak = (memory.cuda_peak if on_cuda else memory.cpu_peak)(lambda: task(tokens))
    times = (timing.cuda_times if on_cuda else timing.cpu_times)(
        lambda: task(tokens), point.repeats, "warm"
    )
    numbers = timing.quantiles(times)
    counted = point.seq_len if point.task == "train" else point.new_tokens
    return {
        **numbers,
        "tokens_per_s": point.batch * counted / numbers["time_ms"] * 1e3,
        "peak_memory_bytes": peak["peak"],
        "reserved_memory_bytes": peak.get("reserved"),
        "memory_method": peak["method"],
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
    return GPT(config, attention=point.provider).to(point.device)


def make_tokens(point: ModelPoint) -> torch.Tensor:
    """(batch, seq_len + 1)."""
    generator = torch.Generator().manual_seed(point.seed)
    vocabulary, shape = SHAPES[point.shape]["vocab_size"], (point.batch, point.seq_len + 1)
    return torch.randint(vocabulary, shape, generator=generator).to(point.device)


def training(point: ModelPoint) -> Callable[[torch.Tensor], float]:
    """A step on (batch, n + 1) tokens; its loss."""
    model, dtype = make_model(point), getattr(torch, point.dtype)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step(tokens: torch.Tensor) -> float:
        with torch.autocast(point.device, dtype, enabled=dtype != torch.float32):
            loss = next_token_loss(model, tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()

    return step


def generation(point: ModelPoint) -> Callable[[torch.Tensor], list[list[int]]]:
    """The new tokens after the first n of (batch, n + 1)."""
    model = make_model(point).to(getattr(torch, point.dtype)).eval()
    how = cached if point.provider == OURS else recomputed
    return lambda tokens: how(model, tokens[:, :-1], point.new_tokens)


def cached(model: GPT, prompts: torch.Tensor, count: int) -> list[list[int]]:
    return model.generate(list(prompts), count, temperature=0)


@torch.no_grad()
def recomputed(model: GPT, prompts: torch.Tensor, count: int) -> list[list[int]]:
    tokens = prompts
    for _ in range(count):
        likeliest = model.logits(model.hidden(tokens)[:, -1:]).argmax(-1)
        tokens = torch.cat([tokens, likeliest], 1)
    return tokens[:, prompts.shape[1] :].tolist()
