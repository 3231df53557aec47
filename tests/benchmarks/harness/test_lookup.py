"""Names of a user's own, in a working directory that Python does not search by itself."""

import sys

import pytest

from benchmarks.harness.lookup import lookup


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, absent from sys.path as in an installed command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["own_provider", "own_package.own_provider"])
def test_a_module_in_the_working_directory_is_found(name, folder):
    path = folder / f"{name.replace('.', '/')}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text("def plain(): return 'plain'\n")
    assert lookup("provider", f"{name}:plain", {})() == "plain"
    searched = list(sys.path)
    assert searched[0] == str(folder)
    lookup("provider", f"{name}:plain", {})
    assert sys.path == searched


def test_a_name_of_the_table_leaves_the_path_alone(folder):
    searched = list(sys.path)
    assert lookup("provider", "known", {"known": 3}) == 3
    with pytest.raises(ValueError, match="unknown provider 'other'; known: known, or your own as"):
        lookup("provider", "other", {"known": 3})
    assert sys.path == searched


def test_a_module_that_is_nowhere(folder):
    with pytest.raises(ValueError, match="cannot load provider 'nowhere_at_all:f': No module"):
        lookup("provider", "nowhere_at_all:f", {})
