"""What the checks of a variant have found, and the report of a variant that passed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Findings:
    """The outcome of each check: at how many shapes it ran, what it found, or why it did not run.

    Attributes:
        checked: the number of shapes at which a check ran.
        problems: what a check found, one sentence a shape.
        unchecked: why a check did not run, or not at some shapes.
    """

    checked: dict[str, int] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def check(self, name: str, where):
        """Run a check at one shape; an exception, which a hook of the user raised, is a problem."""
        self.checked[name] = self.checked.get(name, 0) + 1
        try:
            yield
        except Exception as error:
            self.add(name, f"at {where}: raised {type(error).__name__}: {error}")

    def add(self, name: str, problem: str) -> None:
        self.problems.setdefault(name, []).append(problem)

    def leave_out(self, names: Iterable[str], reason: str) -> None:
        self.unchecked.update(dict.fromkeys(names, reason))

    def merge(self, other: Findings) -> None:
        """Add the findings of checks that ran in another process."""
        self.checked.update(other.checked)
        self.problems.update(other.problems)
        self.unchecked.update(other.unchecked)

    def failure(self, name: str) -> str:
        """What is wrong with the variant ``name``, check by check; the first shape of each."""
        lines = [f"variant {name!r} is wrong"]
        for check, found in self.problems.items():
            more = f" (and at {len(found) - 1} more shapes)" if len(found) > 1 else ""
            lines.append(f"  {check}: {found[0]}{more}")
        lines += [f"  {check}: NOT CHECKED: {why}" for check, why in self.unchecked.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """What `check_variant` has checked; prints as a table.

    Attributes:
        name: of the variant.
        checked: each check, and the number of shapes at which it ran and passed.
        unchecked: each check that did not run, or not at some shapes, and why.
        kernels: where the kernel hooks ran; empty if they did not.
    """

    name: str
    checked: dict[str, int]
    unchecked: dict[str, str]
    kernels: str

    def __str__(self) -> str:
        rows = [(check, f"passed at {n} shapes") for check, n in self.checked.items()]
        rows += [(check, f"NOT CHECKED: {why}") for check, why in self.unchecked.items()]
        width = max(len(check) for check, _ in rows)
        lines = [f"  {check:{width}}  {outcome}" for check, outcome in rows]
        where = f", kernel hooks {self.kernels}" if self.kernels else ""
        return "\n".join([f"variant {self.name!r}{where}", *lines])
