"""docs/architecture.md names what is there, and no folder is crowded.

Seen failing on: a folder of ops that the map lacks, a line for a file that was moved, a folder
with a fifteenth file.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAP = ROOT / "docs" / "architecture.md"
# Every folder in these has a line on the map.
MAPPED = ("fused_attention", "fused_attention/ops", "benchmarks")
MOST_FILES = 14


def paths_on_the_map(text: str) -> set[str]:
    """The paths that the tree in the first code block of ``text`` names."""
    tree = re.search(r"```\n(.*?)```", text, re.S).group(1)
    parents, found = {}, set()
    for line in tree.splitlines():
        match = re.match(r"( *)([\w.]+/?)(?: {2,}\S|$)", line)
        if match is None or len(match[1]) % 4:
            continue  # a continued description
        depth = len(match[1]) // 4
        path = parents.get(depth - 1, "") + match[2]
        found.add(path)
        if path.endswith("/"):
            parents[depth] = path
    return found


def folders(parent: str) -> list[str]:
    return [
        f"{parent}/{path.name}/"
        for path in sorted((ROOT / parent).iterdir())
        if path.is_dir() and not path.is_symlink() and any(path.rglob("*.py"))
    ]


def test_every_path_on_the_map_exists():
    missing = [path for path in paths_on_the_map(MAP.read_text()) if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("parent", MAPPED)
def test_every_folder_is_on_the_map(parent):
    assert set(folders(parent)) <= paths_on_the_map(MAP.read_text())


def test_the_tree_is_read_with_its_levels():
    text = "# A\n```\na/     one\n    b/     two\n        c.py   three\n           more\nd/\n```\n"
    assert paths_on_the_map(text) == {"a/", "a/b/", "a/b/c.py", "d/"}


@pytest.mark.parametrize("parent", ["fused_attention", "benchmarks"])
def test_no_folder_is_crowded(parent):
    counts = {
        folder: sum(path.suffix == ".py" for path in folder.iterdir())
        for folder in [ROOT / parent, *(ROOT / parent).rglob("*")]
        if folder.is_dir() and not folder.is_symlink()
    }
    assert len(counts) > 5
    assert not {folder.name: n for folder, n in counts.items() if n > MOST_FILES}
