"""A training run: its state, updates, evaluation and samples."""

from __future__ import annotations

import contextlib
import math
import random
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from fused_attention.models import GPT
from fused_attention.objectives import next_token_loss

from . import checkpoint, corpus
from .errors import Refused
from .processes import Processes
from .recipe import Recipe

PROMPT = "The "
TEMPERATURE, SAMPLES = 0.7, 3
RULE = "-" * 40


class Objective(nn.Module):
    """The mean loss as a module, whose gradients DDP can average over the processes."""

    def __init__(self, model: GPT, autocast: str) -> None:
        super().__init__()
        self.model, self.autocast = model, autocast == "bfloat16"

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar, of windows of tokens (batch, context + 1)."""
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=self.autocast):
            return next_token_loss(self.model, windows[:, :-1], windows[:, 1:])


class Training:
    """A model, its optimizer, and the number of steps done: the content of a checkpoint.

    The learning rate, the batch and the random numbers of a step are functions of its number and
    the seed, so that a checkpoint needs no state of schedule, data or random generators.
    """

    def __init__(self, recipe: Recipe, text: str, path: Path, group: Processes) -> None:
        if recipe.batch % (group.count * recipe.accumulate):
            raise Refused(
                f"--batch: expected a multiple of {group.count} processes x {recipe.accumulate} "
                f"parts, got {recipe.batch}"
            )
        self.recipe, self.path, self.group = recipe, path, group
        self.configuration = {**asdict(recipe), "text": corpus.digest(text)}
        found = checkpoint.load(path)
        if found is not None:
            checkpoint.check(path, found["configuration"], self.configuration)
        self._read(text, found)
        self.model = self._model().to(group.device)
        self.objective = group.parallel(Objective(self.model, recipe.autocast))
        self.optimizer = adamw(self.model, recipe)
        self.step, self.losses, self.held_out_losses = 0, [], []
        if found is not None:
            self._restore(found)

    def _read(self, text: str, found: dict | None) -> None:
        """Tokenize the text, with the byte pairs of the checkpoint if there is one."""
        recipe, (train, held_out) = self.recipe, corpus.split(text)
        if recipe.bpe:
            known = found and found["byte_pairs"]
            if not known and self.group.first:
                known = corpus.learn_bpe(train, recipe.bpe)
            self.tokenizer = corpus.BPE(self.group.from_first(known))
        else:
            self.tokenizer = corpus.Bytes()
        windows = {
            what: corpus.Windows(self.tokenizer.encode(part), recipe.context, recipe.seed, what)
            for what, part in (("the corpus", train), ("the held-out tenth", held_out))
        }
        self.train, self.held_out = windows.values()
        self.bytes_per_token = len(held_out.encode()) / len(self.held_out.tokens)

    def _model(self) -> GPT:
        torch.manual_seed(self.recipe.seed)
        try:
            config = self.recipe.config(self.tokenizer.vocab_size)
            return GPT(config, attention=self.recipe.attention)
        except ValueError as error:
            raise Refused(str(error)) from error

    def _restore(self, found: dict) -> None:
        self.model.load_state_dict(found["model"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.step, self.losses = found["step"], found["losses"]
        self.held_out_losses = found["held_out_losses"]

    def save(self) -> None:
        if self.group.first:
            content = {
                "configuration": self.configuration,
                "byte_pairs": self.tokenizer.stored,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "losses": self.losses,
                "held_out_losses": self.held_out_losses,
            }
            checkpoint.save(self.path, content)

    def update(self) -> float:
        """Take one step; returns its loss over the whole batch."""
        recipe, group = self.recipe, self.group
        random_numbers = random.Random(f"{recipe.seed} {self.step} {group.rank}")
        torch.manual_seed(random_numbers.getrandbits(63))
        share = self.train.batch(self.step, recipe.batch)[group.rank :: group.count]
        parts = share.to(group.device).chunk(recipe.accumulate)
        total = torch.zeros((), device=group.device)
        for part in parts:
            # Gradients are averaged over processes once, with the last part.
            local = group.count > 1 and part is not parts[-1]
            with self.objective.no_sync() if local else contextlib.nullcontext():
                loss = self.objective(part) / recipe.accumulate
                loss.backward()
            total += loss.detach()
        loss = group.mean(total)
        if not math.isfinite(loss):
            raise Refused(f"the loss is {loss} at step {self.step}; the checkpoint is of earlier")
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = recipe.learning_rate(self.step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.losses.append(loss)
        return loss

    @torch.no_grad()
    def evaluate(self) -> float:
        """The loss on the held-out text."""
        windows = self.held_out.spread().to(self.group.device)
        objective = Objective(self.model.eval(), self.recipe.autocast)
        parts = windows.split(self.recipe.batch)
        loss = sum(objective(part).item() * len(part) for part in parts) / len(windows)
        self.model.train()
        self.held_out_losses.append((self.step, loss))
        return loss

    def sample(self) -> str:
        """SAMPLES continuations of PROMPT, each up to the end of the context."""
        prompt, attention = self.tokenizer.encode(PROMPT), self.model.attention
        self.model.attention = "fused"  # the only one that reads a paged cache
        samples = self.model.generate(
            [prompt],
            self.recipe.context - len(prompt),
            temperature=TEMPERATURE,
            num_return_sequences=SAMPLES,
            seed=self.recipe.seed,
        )
        self.model.attention = attention
        return f"\n{RULE}\n".join(self.tokenizer.decode(prompt + tokens) for tokens in samples)


def adamw(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW with weight decay of matrices alone, as GPT-3 (arXiv 2005.14165, appendix B)."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, recipe.lr, (0.9, 0.95), fused=True)
