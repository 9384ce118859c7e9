"""Our layouts against Binance's own schema, field by field."""

import struct
from xml.etree import ElementTree

import pytest

from tests.fixtures.paths import SHARED_DATA
from tickcast import sbe

SCHEMA = SHARED_DATA / "sbe" / "stream_1_0.xml"
pytestmark = pytest.mark.skipif(not SCHEMA.exists(), reason=f"Binance's schema not found at {SCHEMA}")

SBE = "{http://fixprotocol.io/2016/sbe}"
PRIMITIVES = {"uint8": "B", "uint16": "H", "uint32": "I", "int8": "b", "int64": "q"}

# (block, group of the given dimension and entry, …) of each template
LAYOUTS = {
    sbe.TRADES: (sbe._TRADES_BLOCK, [(sbe._TRADES_GROUP, sbe._TRADE)]),
    sbe.BEST_BID_ASK: (sbe._BEST_BID_ASK_BLOCK, []),
    sbe.DEPTH_SNAPSHOT: (sbe._DEPTH_SNAPSHOT_BLOCK, [(sbe._LEVELS_GROUP, sbe._LEVEL)] * 2),
    sbe.DEPTH_DIFF: (sbe._DEPTH_DIFF_BLOCK, [(sbe._LEVELS_GROUP, sbe._LEVEL)] * 2),
}


@pytest.fixture(scope="module")
def schema() -> ElementTree.Element:
    return ElementTree.parse(SCHEMA).getroot()


def primitive(schema: ElementTree.Element, name: str) -> str:
    """The struct code of the type, enum or primitive called `name`."""
    found = schema.find(f"types/type[@name='{name}']")
    if found is not None:
        return PRIMITIVES[found.attrib["primitiveType"]]
    enum = schema.find(f"types/enum[@name='{name}']")
    return PRIMITIVES[enum.attrib["encodingType"] if enum is not None else name]


def composite(schema: ElementTree.Element, name: str) -> str:
    members = schema.findall(f"types/composite[@name='{name}']/type")
    return "<" + "".join(PRIMITIVES[member.attrib["primitiveType"]] for member in members)


def fields(schema: ElementTree.Element, parent: ElementTree.Element) -> str:
    """The struct format of the fields that take space: a constant takes none."""
    codes = [
        primitive(schema, field.attrib["type"])
        for field in parent.findall("field")
        if field.get("presence") != "constant"
    ]
    return "<" + "".join(codes)


def test_schema_id_and_header(schema: ElementTree.Element) -> None:
    assert int(schema.attrib["id"]) == sbe.SCHEMA_ID
    assert schema.attrib["byteOrder"] == "littleEndian"
    assert composite(schema, "messageHeader") == sbe._HEADER.format
    assert composite(schema, "varString8") == "<BB"


def test_every_template_of_the_schema_is_known(schema: ElementTree.Element) -> None:
    assert {int(message.attrib["id"]) for message in schema.findall(f"{SBE}message")} == set(LAYOUTS)


@pytest.mark.parametrize("template", LAYOUTS)
def test_layout(schema: ElementTree.Element, template: int) -> None:
    (message,) = (m for m in schema.findall(f"{SBE}message") if int(m.attrib["id"]) == template)
    block, groups = LAYOUTS[template]
    assert message.attrib["name"] == sbe._NAMES[template]
    assert fields(schema, message) == block.format
    found = message.findall("group")
    assert len(found) == len(groups)
    for group, (dimension, entry) in zip(found, groups, strict=True):
        assert composite(schema, group.get("dimensionType", "groupSizeEncoding")) == dimension.format
        assert fields(schema, group) == entry.format
    assert [data.attrib["type"] for data in message.findall("data")] == ["varString8"]
    assert struct.calcsize(block.format) == block.size
