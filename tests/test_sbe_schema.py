"""Our layouts compared with those of Binance's schema, field by field."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from tests.fixtures.paths import EVENTS
from tickcast import sbe

STATED: dict[str, dict[str, Any]] = json.loads((EVENTS / "sbe" / "layouts.json").read_text())
SCHEMA = STATED.pop("schema")
PRIMITIVES = {"uint8": "B", "uint16": "H", "uint32": "I", "int8": "b", "int64": "q"}

# (block, group of the given dimension and entry, …) of each template
LAYOUTS = {
    sbe.TRADES: (sbe._TRADES_BLOCK, [(sbe._TRADES_GROUP, sbe._TRADE)]),
    sbe.BEST_BID_ASK: (sbe._BEST_BID_ASK_BLOCK, []),
    sbe.DEPTH_SNAPSHOT: (sbe._DEPTH_SNAPSHOT_BLOCK, [(sbe._LEVELS_GROUP, sbe._LEVEL)] * 2),
    sbe.DEPTH_DIFF: (sbe._DEPTH_DIFF_BLOCK, [(sbe._LEVELS_GROUP, sbe._LEVEL)] * 2),
}


def layout(fields: list[tuple[str, str]]) -> str:
    """The struct format of `fields`, each a name and a primitive type."""
    return "<" + "".join(PRIMITIVES[primitive] for _, primitive in fields)


def test_schema_id_and_header() -> None:
    assert SCHEMA["id"] == sbe.SCHEMA_ID
    assert SCHEMA["byte_order"] == "littleEndian"
    assert layout(SCHEMA["header"]) == sbe._HEADER.format
    assert layout(SCHEMA["text"]) == "<BB"  # the length and each of so many bytes


def test_every_template_of_the_schema_is_known() -> None:
    assert {message["id"] for message in STATED.values()} == set(LAYOUTS)


@pytest.mark.parametrize("template", LAYOUTS)
def test_layout(template: int) -> None:
    ((name, message),) = ((n, m) for n, m in STATED.items() if m["id"] == template)
    block, groups = LAYOUTS[template]
    assert name == sbe._NAMES[template]
    assert layout(message["block"]) == block.format
    assert len(message["groups"]) == len(groups)
    for group, (dimension, entry) in zip(message["groups"], groups, strict=True):
        assert layout(group["dimension"]) == dimension.format
        assert layout(group["entry"]) == entry.format
    assert message["texts"] == ["symbol"]
    assert struct.calcsize(block.format) == block.size
