"""Every row of the mutation tables can be applied, and names a test that exists.

`python -m tests.mutations` shows that the tests notice; that takes a quarter of an hour.
"""

import re
from collections import Counter
from pathlib import Path

from .mutation_tables import MUTATIONS

ROOT = Path(__file__).parents[1]


def test_the_text_to_break_occurs_once():
    counts = {m.name: (ROOT / m.file).read_text(encoding="utf-8").count(m.old) for m in MUTATIONS}
    assert not {name: count for name, count in counts.items() if count != 1}


def test_something_is_broken():
    assert not [m.name for m in MUTATIONS if m.old == m.new]


def test_names_are_unique():
    assert not [name for name, count in Counter(m.name for m in MUTATIONS).items() if count > 1]


def test_the_tests_exist():
    missing = []
    for mutation in MUTATIONS:
        file, _, test = mutation.test.partition("::")
        name = re.match(r"\w+", test)[0]
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        if not re.search(rf"^def {name}", source, re.M):
            missing.append(mutation.name)
    assert not missing
