"""What a rehearsal finds, and the rules that find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from operations.rehearsal.template import Resource, Templates


class Finding(NamedTuple):
    """Something that an account would refuse, or that goes wrong in it."""

    rule: str
    stack: str
    resource: str  # the logical id; empty: the template itself
    place: str  # the construct's path, and the property
    problem: str
    remedy: str


# Yields the resource (or the stack's word, for the template itself), the property, and what is wrong.
Check = Callable[[Templates], Iterator[tuple[Resource | str, str, str]]]


class Rule(NamedTuple):
    """A constraint that a service enforces. `source` is the page that states it; `kinds` are the types of
    resources that the rule checks, empty if it checks templates as such. `in_account`: it is about an
    account, and means nothing to an emulator that is thrown away. `place` is the way to the only property
    that it reads, empty if there are several."""

    name: str
    checks: str
    source: str
    kinds: tuple[str, ...]
    remedy: str
    check: Check
    in_account: bool = False
    place: str = ""

    def findings(self, templates: Templates) -> Iterator[Finding]:
        for where, place, problem in self.check(templates):
            if isinstance(where, str):
                yield Finding(self.name, where, "", place, problem, self.remedy)
            else:
                at = f"{where.path} {place}".strip()
                yield Finding(self.name, where.stack, where.logical_id, at, problem, self.remedy)


def rule(
    name: str,
    checks: str,
    *,
    source: str,
    kinds: tuple[str, ...] = (),
    remedy: str,
    in_account: bool = False,
) -> Callable[[Check], Rule]:
    """Makes a `Rule` of the function that checks it."""
    return lambda check: Rule(name, checks, source, kinds, remedy, check, in_account)
