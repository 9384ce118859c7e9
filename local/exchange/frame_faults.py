"""Faults in frames: corruption, and a newer version of the schema.

SBE has no checksum. A flipped bit inside a price or an id gives another valid number, which no decoder can
detect (TCP and TLS have checksums for that), so a frame is corrupted where it can be detected: the client has
to notice that it cannot read the frame and has lost its contents.
"""

from __future__ import annotations

import json
import struct
from typing import Literal

Corruption = Literal["flip", "truncate", "template"]

_HEADER = struct.Struct("<HHHH")  # blockLength, templateId, schemaId, version
_GROUP = struct.Struct("<HI")  # blockLength, numInGroup of the trades
_TRADES_TEMPLATE = 10000
_UNKNOWN_TEMPLATE = 10099
_PADDING = b"\xee"


def corrupted(content: bytes | str, how: Corruption) -> bytes | str:
    """The frame with its header inverted, cut in half, or of an unknown template (a JSON event type)."""
    if how == "truncate":
        return content[: len(content) // 2]
    if isinstance(content, str):
        return _flipped_text(content) if how == "flip" else _with_unknown_event(content)
    if how == "flip":
        return bytes(byte ^ 0xFF for byte in content[: _HEADER.size]) + content[_HEADER.size :]
    block_length, _, schema_id, version = _HEADER.unpack_from(content)
    return _HEADER.pack(block_length, _UNKNOWN_TEMPLATE, schema_id, version) + content[_HEADER.size :]


def _flipped_text(text: str) -> str:
    """Still ASCII, since a text frame that is not UTF-8 would end the connection."""
    return "".join(chr(ord(character) ^ 1) for character in text[:8]) + text[8:]


def _with_unknown_event(text: str) -> str:
    message = json.loads(text)
    payload = {"e": "unknownEvent", "s": message.get("data", message)["s"]}
    if "data" in message:
        payload = {"stream": message["stream"], "data": payload}
    return json.dumps(payload, separators=(",", ":"))


def newer(content: bytes | str, version: int, block_bytes: int, entry_bytes: int) -> bytes | str:
    """The frame in `version` of the schema, with additional bytes in the block and in each entry.

    A JSON payload, which has no version, gets one more field.
    """
    if isinstance(content, str):
        return _with_version_field(content, version)
    block_length, template_id, schema_id, _ = _HEADER.unpack_from(content)
    end = _HEADER.size + block_length
    block = content[_HEADER.size : end] + _PADDING * block_bytes
    header = _HEADER.pack(block_length + block_bytes, template_id, schema_id, version)
    if template_id != _TRADES_TEMPLATE:
        return header + block + content[end:]
    entry_length, count = _GROUP.unpack_from(content, end)
    start = end + _GROUP.size
    end = start + entry_length * count
    entries = [content[at : at + entry_length] for at in range(start, end, entry_length)]
    group = _GROUP.pack(entry_length + entry_bytes, count)
    padding = _PADDING * entry_bytes
    return header + block + group + b"".join(entry + padding for entry in entries) + content[end:]


def _with_version_field(text: str, version: int) -> str:
    message = json.loads(text)
    message.get("data", message)["schemaVersion"] = version
    return json.dumps(message, separators=(",", ":"))
