"""`examples/train_gpt.py`: exact resuming, kills at any moment, several processes, errors.

Mutations that these tests catch are in `tests/mutation_tables/training.py`.
"""

import random
import time

import pytest
import torch

from .runs import checkpoint, free_port, start, stored, train, train_gpt, words

KILLS = 20


def same(x, y) -> bool:
    """Whether two nested structures have equal bits."""
    if isinstance(x, torch.Tensor):
        return torch.equal(x, y)
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(same(x[k], y[k]) for k in x)
    if isinstance(x, (list, tuple)):
        return len(x) == len(y) and all(map(same, x, y))
    return x == y


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The checkpoint of an uninterrupted run, with dropout."""
    return train(tmp_path_factory.mktemp("whole"), dropout=0.1)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 5])
def test_resuming_is_equal_to_the_bit(at, whole, tmp_path, monkeypatch, capsys):
    """Stop in the middle of step ``at``, when the last updates may be in no checkpoint yet."""
    updates = iter(range(at))
    step = torch.optim.AdamW.step

    def stopping(self, *args):
        if next(updates, None) is None:
            raise Stopped
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", stopping)
    with pytest.raises(Stopped):
        train(tmp_path, dropout=0.1)
    monkeypatch.undo()
    torch.manual_seed(99)  # the state of the global generator does not matter
    capsys.readouterr()
    found = train(tmp_path, dropout=0.1)
    saved = at // 2 * 2
    assert (f"resuming after step {saved}" in capsys.readouterr().out) == (saved > 0)
    assert same(found, whole)


def test_a_finished_run_stays_as_it_is(whole, tmp_path, capsys):
    first = train(tmp_path, dropout=0.1)
    assert same(first, whole)
    assert same(train(tmp_path, dropout=0.1), whole)
    assert "resuming after step 8" in capsys.readouterr().out


def test_it_learns(tmp_path, capsys):
    found = train(tmp_path, steps=60, eval_every=60, save_every=60, layers=1, dim=32, lr=2e-2)
    assert found["losses"][0] > 5.4  # log 256 = 5.55
    assert sum(found["losses"][-10:]) / 10 < 3.5
    assert found["held_out_losses"] == [(60, pytest.approx(3.3, abs=0.3))]
    output = capsys.readouterr().out
    assert "Before:\nThe " in output and "After:\nThe " in output and "bits per byte" in output
    assert (tmp_path / "loss.png").stat().st_size > 10_000


def test_parts_of_a_batch_add_up(tmp_path):
    one, four = (train(tmp_path / str(n), accumulate=n) for n in (1, 4))
    assert one["losses"] == pytest.approx(four["losses"], rel=1e-5)


def test_killed_at_random_moments_it_never_leaves_an_unreadable_checkpoint(tmp_path):
    """SIGKILL 20 times, each up to 50 ms after a checkpoint was written."""
    out, moments = tmp_path / "run", random.Random(0)
    path = out / checkpoint.NAME
    options = {"steps": 100_000, "save_every": 1, "eval_every": 100_000}
    kills = partial = steps = 0
    deadline = time.monotonic() + 60
    while kills < KILLS:
        assert time.monotonic() < deadline
        before = path.stat().st_mtime_ns if path.exists() else 0
        process = start(out, **options)
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.join()
        kills += 1
        partial += (out / f".{checkpoint.NAME}.partial").exists()
        found = stored(out)
        assert found["step"] == len(found["losses"]) > steps
        steps = found["step"]
    assert partial > 0  # some kills hit the writing of a checkpoint


def test_two_processes_learn_what_one_learns(tmp_path):
    """In fp64, where rounding hides no wrong gradient; 4 steps of 2 parts each."""
    options = {"steps": 4, "accumulate": 2, "batch": 8, "dtype": torch.float64}
    port = free_port()
    runs = [start(tmp_path / "two", rank, port, **options) for rank in (0, 1)]
    runs.append(start(tmp_path / "one", **options))
    for process in runs:
        process.join(60)
        assert process.exitcode == 0
    one, two = stored(tmp_path / "one"), stored(tmp_path / "two")
    assert one["model"]["embedding.weight"].dtype == torch.float64
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-12)
    assert one["held_out_losses"][-1][1] == pytest.approx(two["held_out_losses"][-1][1], rel=1e-12)
    assert len(set(one["losses"])) == 4


def refused(capsys, *given) -> str:
    assert train_gpt.main(list(given)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_checkpoint_of_another_configuration_is_refused_and_untouched(tmp_path, capsys):
    train(tmp_path)
    path = tmp_path / checkpoint.NAME
    before = path.read_bytes()
    line = refused(capsys, *words(tmp_path, dim=32, lr=0.1))
    assert "dim is 16 there and 32 here, lr is 0.01 there and 0.1 here; it was left" in line
    text = tmp_path / "other.txt"
    text.write_text("another text " * 100)
    assert "text is" in refused(capsys, *words(tmp_path, text=text))
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_an_unreadable_checkpoint_is_refused_and_untouched(damage, tmp_path, capsys):
    train(tmp_path, steps=2)
    path = tmp_path / checkpoint.NAME
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"x" * 99, "empty": b""}[damage])
    before = path.read_bytes()
    assert "is not a readable checkpoint" in refused(capsys, *words(tmp_path, steps=2))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "short"}, "the corpus is too short: expected 32 tokens or more"),
        ({"text": "tail"}, "the held-out tenth is too short"),
        ({"text": "missing"}, "--text: cannot read"),
        ({"text": "latin-1"}, "--text: cannot read"),
        ({"heads": 3}, "num_heads: expected a divisor of dim"),
        ({"position": "nowhere"}, "position: expected one of"),
        ({"attention": "fast"}, "attention: expected one of"),
        ({"accumulate": 3}, "--batch: expected a multiple of 1 processes x 3 parts, got 4"),
        ({"steps": 0}, "--steps: expected 1 or more, got 0"),
        ({"save_every": 0}, "--save-every: expected 1 or more"),
        ({"bpe": 100}, "--bpe: expected more than the 256 bytes, got 100"),
        ({"autocast": "int8"}, "--autocast: expected none or bfloat16"),
        ({"lr": 1e30, "clip": 1e30}, "the loss is nan at step"),
    ],
)
def test_wrong_options_are_refused_in_one_line(changes, message, tmp_path, capsys):
    texts = {"short": b"abc", "tail": b"a" * 100, "latin-1": b"\xe9" * 999}
    for name, content in texts.items():
        (tmp_path / name).write_bytes(content)
    if "text" in changes:
        changes = {"text": tmp_path / changes["text"]}
    assert message in refused(capsys, *words(tmp_path / "out", **changes))
    assert not (tmp_path / "out" / checkpoint.NAME).exists()


def test_two_runs_in_one_folder_are_refused(tmp_path, capsys):
    with checkpoint.lock(tmp_path):
        assert "is in use by another run" in refused(capsys, *words(tmp_path))
    train(tmp_path, steps=1)


def test_without_tokenizers_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    assert "pip install tokenizers" in refused(capsys, *words(tmp_path, bpe=300))


def test_byte_pairs_are_those_of_the_checkpoint(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    from training import corpus

    whole = train(tmp_path / "whole", bpe=300)
    assert whole["model"]["embedding.weight"].shape[0] == 300
    saving, kept = checkpoint.save, []
    monkeypatch.setattr(
        checkpoint, "save", lambda path, content: kept or (kept.append(1), saving(path, content))
    )
    train(tmp_path / "half", bpe=300)
    monkeypatch.setattr(checkpoint, "save", saving)
    monkeypatch.setattr(corpus, "learn_bpe", lambda *_: pytest.fail("trained again"))
    assert same(train(tmp_path / "half", bpe=300), whole)


def test_byte_pairs_keep_the_text():
    pytest.importorskip("tokenizers")
    from training import corpus

    text = "So is it – 'naïve'?\n\n    x = [1,  2]\n"
    tokenizer = corpus.BPE(corpus.learn_bpe(text, 280))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) < len(text.encode())


def test_an_epoch_is_every_window_once():
    from training.corpus import Windows

    windows = Windows(list(range(105)), 10, seed=0, what="")
    assert windows.count == 9
    firsts = [windows.batch(i, 3)[:, 0] for i in range(6)]
    for epoch in (torch.cat(firsts[:3]), torch.cat(firsts[3:])):
        apart = epoch.sort().values.diff()
        assert apart.tolist() == [10] * 8
    assert not torch.equal(torch.cat(firsts[:3]) // 10, torch.cat(firsts[3:]) // 10)
    assert torch.equal(windows.batch(4, 3), windows.batch(4, 3))
    assert (windows.batch(1, 3).diff() == 1).all()
    assert not torch.equal(Windows(list(range(105)), 10, 1, "").batch(0, 9), windows.batch(0, 9))
