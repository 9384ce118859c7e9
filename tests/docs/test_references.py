"""What the documents name exists: pages, headings, files, commands with their options, settings."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from urllib.parse import unquote

import pytest

from tests.docs.documents import Document, Makefile, document, documents
from tests.fixtures.paths import ROOT

DOCUMENTS = documents()
# Records of the past: what they name may have been replaced since.
CURRENT = [each for each in DOCUMENTS if each.name != "CHANGELOG.md" and "/adr/" not in each.name]
MAKEFILE = Makefile((ROOT / "Makefile").read_text("utf-8"))
# Read from the environment by the commands themselves, or by every command.
FROM_ENVIRONMENT = {"KEY", "ENV", "EMULATOR", "AWS_ENDPOINT_URL", "BINANCE_API_KEY", "BINANCE_API_KEY_FILE"}
FROM_ENVIRONMENT |= {"PYTHON", "PYTHON313"}
PACKAGES = ROOT / "layers" / "core" / "python"
FOLDERS = {path.name for folder in (ROOT, PACKAGES) for path in folder.iterdir() if path.is_dir()}
FOLDERS -= {"out", "node_modules", "cdk.out"}
FILE = re.compile(r"[\w.\-/]+(?:/|\.(?:py|md|ya?ml|json|toml|txt|sql|ipynb|js|css|html|png|gz|onnx|ini|sh))")
SETTING = re.compile(r"[a-z_]+(?:\.[a-z_]+)+")


def every(checked: list[Document]) -> Callable[..., object]:
    return pytest.mark.parametrize("document", checked, ids=[each.name for each in checked])


@every(DOCUMENTS)
def test_links_lead_to_a_file_and_a_heading(document: Document) -> None:
    by_path = {each.path: each for each in DOCUMENTS}
    broken = []
    for link in document.links:
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (document.path.parent / unquote(target)).resolve() if target else document.path
        if not path.exists():
            broken.append(f"{link}: there is no {target}")
        elif anchor and path in by_path and anchor not in by_path[path].anchors:
            broken.append(f"{link}: {path.name} has no such heading")
    assert not broken


@every(CURRENT)
def test_make_commands_and_their_options_exist(document: Document) -> None:
    targets, problems = MAKEFILE.targets, []
    for target, variables in document.make_commands:
        if target not in targets:
            problems.append(f"make {target}: no such target")
            continue
        problems += [
            f"make {target} {name}=: the rule does not read it"
            for name in variables
            if name not in targets[target] | FROM_ENVIRONMENT
        ]
    assert not problems


def test_every_command_is_in_the_index_or_in_contributing() -> None:
    pages = [document(name) for name in ("README.md", "docs/README.md", "CONTRIBUTING.md")]
    named = {target for page in pages for target, _ in page.make_commands}
    assert not set(MAKEFILE.described) - named - {"help"}


def test_variables_of_rules_are_in_the_list_that_make_prints() -> None:
    shown = {name for _, variables in _all_commands() for name in variables}
    assert shown, "no document has a make command with an option"
    assert not shown - MAKEFILE.documented - FROM_ENVIRONMENT


@every(CURRENT)
def test_modules_that_are_run_exist(document: Document) -> None:
    ours = {name for name in document.modules if name.partition(".")[0] in FOLDERS}
    assert not {name for name in ours if importlib.util.find_spec(name) is None}


@every(CURRENT)
def test_files_named_in_sentences_exist(document: Document) -> None:
    missing = []
    for span in document.spans:
        first, slash, _ = span.partition("/")
        if not slash or first not in FOLDERS or not FILE.fullmatch(span):
            continue
        if not any((base / span).exists() for base in (ROOT, PACKAGES, document.path.parent)):
            missing.append(span)
    assert not missing


def test_settings_named_in_sentences_exist() -> None:
    configuration = document("docs/configuration.md")
    known = set(re.findall(r"^\| `([\w.*]+)` ", configuration.text, re.MULTILINE))
    sections = {name.partition(".")[0] for name in known if "." in name}
    patterns = known | {name.rpartition(".")[0] for name in known}
    unknown = {
        f"{each.name}: {span}"
        for each in CURRENT
        for span in each.spans
        if SETTING.fullmatch(span) and span.partition(".")[0] in sections
        if not any(fnmatchcase(span, pattern) for pattern in patterns)
    }
    assert not unknown


def test_every_page_is_in_the_index() -> None:
    """Whoever begins at docs/README.md finds everything."""
    index = document("docs/README.md")
    linked = {(index.path.parent / link.partition("#")[0]).resolve() for link in index.links}
    pages = {each.path for each in DOCUMENTS if each.name.startswith("docs/") and "/adr/" not in each.name}
    assert not {path.relative_to(ROOT).as_posix() for path in pages - linked - {index.path}}


def test_a_broken_reference_is_found() -> None:
    """The patterns see what they are meant to see."""
    sentence = "[x `y`](a.md#b-c) `make run FEED=sim`, `cdk/config/none.py`"
    text = f"# One `two`\n\n{sentence}\n\n```sh of a kind\nmake test-fast\n```\n"
    page = Document(ROOT / "docs" / "x.md", text)
    assert page.links == ["a.md#b-c"]
    assert page.anchors == {"one-two"}
    assert page.blocks_of("sh of a kind") == ["make test-fast\n"]
    assert list(page.make_commands) == [("test-fast", []), ("run", ["FEED"])]
    assert FILE.fullmatch("cdk/config/none.py") and "cdk" in FOLDERS
    assert {"FEED", "SPEED"} <= MAKEFILE.targets["run"] and {"FROM", "DRY"} <= MAKEFILE.targets["backfill"]


def _all_commands() -> Iterator[tuple[str, list[str]]]:
    for each in CURRENT:
        yield from each.make_commands
