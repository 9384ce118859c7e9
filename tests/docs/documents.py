"""What a Markdown document refers to: links, files, `make` commands, modules, settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fixtures.paths import ROOT

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^()\s]+(?:\([^()]*\)[^()\s]*)*)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_MAKE = re.compile(
    r"(?:^|[\s`(;&])make(?: -\w+)*((?: [a-z][a-z-]*)+)((?: [A-Z][A-Z0-9_]*=(?:\"[^\"]*\"|\S*))*)"
)
_MODULE = re.compile(r"python3? -m ([a-z_][\w.]*)")
_RULE = re.compile(r"^([a-z][a-z-]*):(?!=)[^\n]*\n((?:\t[^\n]*\n)*)", re.MULTILINE)
_MACRO = re.compile(r"^([A-Z_]+) [:?]?= ((?:.*\\\n)*.*)$", re.MULTILINE)
_VARIABLE = re.compile(r"\$\(([A-Z][A-Z0-9_]*)\)|\$\(if \$\(([A-Z][A-Z0-9_]*)\)")
_LEFT_OUT = {"node_modules", "out", "cdk.out", "dist", "build"}


@dataclass(frozen=True)
class Document:
    """A Markdown file."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def links(self) -> list[str]:
        """Targets of links, as written. A label may contain code."""
        return _LINK.findall(_FENCE.sub("", self.text))

    @property
    def code(self) -> list[str]:
        """Blocks and spans of code; comments of shells are left out of blocks."""
        blocks = [block for _, block in self.blocks]
        return [*blocks, *_SPAN.findall(_FENCE.sub("", self.text))]

    @property
    def spans(self) -> list[str]:
        """Code within sentences."""
        return _SPAN.findall(_FENCE.sub("", self.text))

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """(what stands after the opening fence, content) of the blocks of code, in their order."""
        return [(label.strip(), content) for label, content in _FENCE.findall(self.text)]

    def blocks_of(self, label: str) -> list[str]:
        return [content for found, content in self.blocks if found == label]

    @property
    def anchors(self) -> set[str]:
        """Of the headings, as GitHub and GitLab make them: a repeated one gets a number."""
        found: dict[str, int] = {}
        anchors = set()
        for heading in _HEADING.findall(_FENCE.sub("", self.text)):
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
            anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            count = found[anchor] = found.get(anchor, -1) + 1
            anchors.add(f"{anchor}-{count}" if count else anchor)
        return anchors

    @property
    def make_commands(self) -> Iterator[tuple[str, list[str]]]:
        """(target, names of the variables that are set) of every `make` command in code."""
        for code in self.code:
            for targets, variables in _MAKE.findall(code):
                names = [each.partition("=")[0] for each in variables.split() if "=" in each]
                yield from ((target, names) for target in targets.split())

    @property
    def modules(self) -> set[str]:
        """What is run by `python -m`."""
        return {name for code in self.code for name in _MODULE.findall(code)}


def documents() -> list[Document]:
    """All Markdown files of the repository."""
    paths = sorted(
        path
        for path in ROOT.rglob("*.md")
        if not any(part in _LEFT_OUT or part.startswith(".") for part in path.relative_to(ROOT).parts)
    )
    return [Document(path, path.read_text("utf-8")) for path in paths]


def document(name: str) -> Document:
    return Document(ROOT / name, (ROOT / name).read_text("utf-8"))


@dataclass(frozen=True)
class Makefile:
    """The interface that the Makefile offers."""

    text: str

    @property
    def targets(self) -> dict[str, set[str]]:
        """By name: the variables that its rule reads, directly or through others."""
        text = self.text.replace("\\\n", " ")
        macros = {name: set(_names(value)) for name, value in _MACRO.findall(text)}
        found: dict[str, set[str]] = {}
        for match in _RULE.finditer(text):
            read = set(_names(match.group(0)))
            for _ in range(3):
                read |= {name for each in read for name in macros.get(each, ())}
            found[match.group(1)] = found.get(match.group(1), set()) | read
        return found

    @property
    def described(self) -> list[str]:
        """The targets that `make` lists."""
        return re.findall(r"^([a-z][a-z-]*):.*## ", self.text, re.MULTILINE)

    @property
    def documented(self) -> set[str]:
        """The variables in its heading, which `make` prints."""
        lines = re.findall(r"^#   ((?:[A-Z][A-Z0-9_]*(?:, )?)+) ", self.text, re.MULTILINE)
        return {name for line in lines for name in line.split(", ")}


def _names(text: str) -> Iterator[str]:
    return (first or second for first, second in _VARIABLE.findall(text))
