"""docs/configuration.md has every setting, as the types and the files have them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct

from cdk.config import Environment
from cdk.config.wording import sections, should_be, struct_of
from operations.rehearsal import configuration
from operations.rehearsal.documents import COMMAND, CONFIGURATION

KEYS = [(section.path, key) for section in sections(Environment) for key in section.keys]


def test_the_page_is_up_to_date() -> None:
    assert CONFIGURATION.read_text("utf-8") == configuration.document(), f"out of date: {COMMAND}"


def test_every_field_of_every_part_is_in_it() -> None:
    """By the fields of the types themselves, down from the environment."""

    def fields(kind: type[Struct], path: str) -> list[str]:
        found = []
        for name, each in kind.__annotations__.items():
            default: Any = getattr(kind(name="dev") if kind is Environment else kind(), name, None)
            full = f"{path}.{name}".lstrip(".")
            if isinstance(default, Struct) and path != "functions":
                found += fields(type(default), full)
            elif each and name not in ("name", "aws"):
                found.append(full)
        return found

    text = configuration.document()
    assert {"stream.fan_out", "functions.load_history", "symbols"} <= set(fields(Environment, ""))
    for path in fields(Environment, ""):
        assert f"| `{path}` | " in text, path
    for path in ("aws.cache.nodes", "aws.ingest.architecture", "functions.*.reserved_concurrency"):
        assert f"| `{path}` | " in text, path


@pytest.mark.parametrize(("path", "key"), KEYS, ids=lambda each: getattr(each, "name", each))
def test_what_each_should_be_is_said_without_its_pattern(path: str, key: Any) -> None:
    if struct_of(key.kind) is None:
        should = should_be(key.kind)
        assert should not in ("a text", "null or a text")
        assert "^" not in should
