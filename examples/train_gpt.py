"""Train a small GPT on real text on a laptop; an interrupted run resumes exactly.

    python examples/train_gpt.py                       # the help texts of Python, byte by byte
    python examples/train_gpt.py --text novel.txt --bpe 1024
    torchrun --nproc-per-node 2 examples/train_gpt.py  # the same batches, shared by two processes

The folder --out holds the checkpoint, and at the end the loss curve.  The same command resumes
from there: on a CPU to the same bits as a run that was never interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from dataclasses import fields
from pathlib import Path

from training import checkpoint, corpus, progress
from training.errors import Refused
from training.processes import Processes, processes
from training.recipe import Recipe
from training.training import Training

INTERRUPTED = 130


def run(recipe: Recipe, text: str, out: Path, save_every: int, group: Processes) -> Training:
    """Train to the last step, from the checkpoint in ``out`` if there is one."""
    display = progress.Display(group.first)
    training = Training(recipe, text, out / checkpoint.NAME, group)
    display.say(
        f"{sum(p.numel() for p in training.model.parameters()):,} parameters, "
        f"{len(training.train.tokens):,} tokens to learn from, {group.count} x {group.device}"
    )
    if training.step:
        display.say(f"resuming after step {training.step:,}")
    elif group.first:
        display.say(f"\nBefore:\n{training.sample()}\n")
    since, seen = time.perf_counter(), training.step
    for step in display.steps(training.step + 1, recipe.steps):
        display.trained(training.update())
        if step == recipe.steps or step % recipe.eval_every == 0:
            rate = (step - seen) * recipe.batch * recipe.context / (time.perf_counter() - since)
            display.evaluated(step, training.losses[-1], training.evaluate(), rate)
            since, seen = time.perf_counter(), step
        if step == recipe.steps or step % save_every == 0:
            training.save()
    if group.first:
        conclude(training, out, display)
    return training


def conclude(training: Training, out: Path, display: progress.Display) -> None:
    """Draw the loss curve, and print samples and losses of the trained model."""
    recipe, loss = training.recipe, training.held_out_losses[-1][1]
    bits = loss / math.log(2) / training.bytes_per_token
    caption = f"{recipe.layers} layers of {recipe.dim}, {recipe.batch} x {recipe.context} tokens"
    progress.draw(out / "loss.png", training.losses, training.held_out_losses, caption)
    display.say(f"\nAfter:\n{training.sample()}\n")
    display.say(f"held-out loss {loss:.3f} nats per token, {bits:.3f} bits per byte")
    display.say(f"loss curve: {out / 'loss.png'}")


def arguments(words: list[str]) -> tuple[argparse.Namespace, Recipe]:
    """The command line: options of the run itself, and the recipe, one option per field."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", type=Path, help="a file in UTF-8 to learn instead")
    parser.add_argument("--out", type=Path, default=Path("runs/gpt"), help="default: runs/gpt")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--save-every", type=int, default=50, help="steps (default: 50)")
    for choice in fields(Recipe):
        text = f"{choice.metadata['help']} (default: {choice.default})"
        flag = f"--{choice.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(choice.default), default=choice.default, help=text)
    given = parser.parse_args(words)
    if given.save_every < 1:
        raise Refused(f"--save-every: expected 1 or more, got {given.save_every}")
    return given, Recipe(**{choice.name: getattr(given, choice.name) for choice in fields(Recipe)})


def main(words: list[str]) -> int:
    try:
        given, recipe = arguments(words)
        text = corpus.read(given.text)
        given.out.mkdir(parents=True, exist_ok=True)
        with processes(given.device) as group:
            first = checkpoint.lock(given.out) if group.first else contextlib.nullcontext()
            with first:
                run(recipe, text, given.out, given.save_every, group)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
