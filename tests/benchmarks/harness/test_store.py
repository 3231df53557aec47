import json
import os
import resource

import pytest

from benchmarks.harness.isolate import CannotRun
from benchmarks.harness.store import NAME, Store
from benchmarks.studies.attention.point import AttentionPoint

from ..points import row


@pytest.fixture
def opened(tmp_path):
    stores = []

    def open_store(**options):
        stores.append(Store(tmp_path, AttentionPoint, **options))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def test_rows_survive(tmp_path, opened):
    store = opened()
    store.append(row(seq_len=256))
    store.append(row(seq_len=512))
    store.close()
    assert [r["seq_len"] for r in opened().rows] == [256, 512]
    assert len((tmp_path / NAME).read_text().splitlines()) == 2


@pytest.fixture
def disk():
    """Limits how large a file may become, as a full disk does."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, unlimited[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


@pytest.mark.parametrize("room", [0, 1, 100, "all but the newline"])
def test_a_row_without_room_is_not_written_in_part(room, tmp_path, opened, disk):
    store, path = opened(), tmp_path / NAME
    store.append(row(seq_len=256))
    before = path.read_bytes()
    disk(len(before) + (room if isinstance(room, int) else len(before) - 1))
    with pytest.raises(OSError, match="File too large"):
        store.append(row(seq_len=512))
    assert path.read_bytes() == before
    assert [r["seq_len"] for r in store.rows] == [256]
    disk(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    store.append(row(seq_len=512))
    store.close()
    again = opened()
    assert [r["seq_len"] for r in again.rows] == [256, 512] and again.notices == []


def test_a_row_that_never_reached_the_disk_is_not_kept(tmp_path, opened, monkeypatch):
    store, path = opened(), tmp_path / NAME
    store.append(row(seq_len=256))
    before = path.read_bytes()

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        store.append(row(seq_len=512))
    assert path.read_bytes() == before and len(store.rows) == 1


DAMAGE = {
    "cut short": lambda text: text[:-20],
    "no newline": lambda text: text[:-1],
    "garbage line": lambda text: text + "}{\n",
    "not an object": lambda text: text + "[1]\n",
    "no key": lambda text: text + '{"status": "ok"}\n',
    "unknown status": lambda text: text + json.dumps(row(status="great", key="x")) + "\n",
    "ok without numbers": lambda text: text + json.dumps(row(key="x") | {"time_ms": None}) + "\n",
    "not text": lambda text: text + "\udcff\udcfe\n",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_set_aside_and_its_good_rows_kept(kind, tmp_path, opened):
    path = tmp_path / NAME
    good = "".join(json.dumps(row(seq_len=n)) + "\n" for n in (256, 512))
    damaged = DAMAGE[kind](good).encode("utf-8", "surrogateescape")
    path.write_bytes(damaged)
    store = opened()
    kept = [256] if kind == "cut short" else [256, 512]
    assert [r["seq_len"] for r in store.rows] == kept
    assert path.with_name(f"{NAME}.corrupt-1").read_bytes() == damaged
    assert [json.loads(line)["seq_len"] for line in path.read_text().splitlines()] == kept
    assert "damaged" in store.notices[0]
    store.append(row(seq_len=1024))
    assert path.read_text().endswith("\n")


def test_damage_is_never_overwritten_by_later_damage(tmp_path, opened):
    path = tmp_path / NAME
    for text in ("first", "second"):
        path.write_text(text)
        opened().close()
    assert path.with_name(f"{NAME}.corrupt-1").read_text() == "first"
    assert path.with_name(f"{NAME}.corrupt-2").read_text() == "second"


def test_a_sound_file_is_left_alone(tmp_path, opened):
    store = opened()
    store.append(row())
    store.close()
    before = (tmp_path / NAME).read_bytes()
    assert opened().notices == []
    assert (tmp_path / NAME).read_bytes() == before
    assert not list(tmp_path.glob("*corrupt*"))


def test_two_runs_do_not_share_a_folder(opened):
    opened()
    with pytest.raises(CannotRun, match=r"^--out: .* is in use by another run$"):
        opened()


def test_fresh_sets_old_results_aside(tmp_path, opened):
    store = opened()
    store.append(row())
    store.close()
    text = (tmp_path / NAME).read_text()
    assert opened(fresh=True).rows == []
    assert (tmp_path / f"{NAME}.old-1").read_text() == text


def test_results_are_final_and_failures_are_retried(opened):
    store = opened()
    for status in ("ok", "unsupported", "oom", "error"):
        store.append(row(status=status, key=status))
    store.append(row(status="timeout", key="timeout", timeout_s=10.0))
    assert store.finished(10.0) == {"ok", "unsupported", "oom", "timeout"}
    assert store.finished(20.0) == {"ok", "unsupported", "oom"}


def test_the_last_row_of_a_point_counts(opened):
    store = opened()
    store.append(row(key="k", status="error"))
    store.append(row(key="k", time_ms=5.0))
    store.append(row(key="other", config="another"))
    assert [r["time_ms"] for r in store.of_config("c")] == [5.0]
    assert "k" in store.finished(1.0)
