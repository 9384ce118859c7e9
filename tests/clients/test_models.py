"""The client's models against the API's OpenAPI document, which comes from the types that are served."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from layers import openapi
from tickcast_client import models

Schema = dict[str, Any]

SCHEMAS: dict[str, Schema] = openapi.document()["components"]["schemas"]
# Written as arrays, or parameters: no classes of answers.
NO_CLASS = {"Path", "Instant", "Source"}
CLASSES = {
    name: kind
    for name, kind in vars(models).items()
    if isinstance(kind, type) and issubclass(kind, models.Answer) and kind is not models.Answer
}


def shape(schema: Schema) -> Any:
    """What a value may be: type names, and references by their name. Limits, names of enumerations and texts
    are left out, because a newer API may have further values."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return "string" if name == "Source" else name
    if "anyOf" in schema:
        return frozenset(shape(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        pair = schema.get("prefixItems") or [schema.get("items", {})]
        return ("array", shape(pair[0]), schema.get("maxItems") == 2)
    if schema.get("type") == "object" or "additionalProperties" in schema:
        members = schema.get("additionalProperties", {})
        return ("object", shape(members) if isinstance(members, dict) else "any")
    if "type" not in schema and "enum" in schema:
        return "string"
    return schema.get("type", "any")


def lenient(found: Any, described: Any) -> bool:
    """Whether a client that reads `found` can read all that is `described`."""
    if isinstance(found, frozenset) or isinstance(described, frozenset):
        kinds = found if isinstance(found, frozenset) else frozenset([found])
        others = described if isinstance(described, frozenset) else frozenset([described])
        return all(any(lenient(kind, other) for kind in kinds) for other in others)
    if isinstance(found, tuple) and isinstance(described, tuple):
        return len(found) == len(described) and all(map(lenient, found, described))
    return found in (described, "any") or (found, described) == ("number", "integer")


def schema_of(kind: type[BaseModel]) -> Schema:
    return kind.model_json_schema(by_alias=True)


def test_each_schema_has_a_class() -> None:
    assert SCHEMAS.keys() - NO_CLASS - CLASSES.keys() == set()


@pytest.mark.parametrize("name", sorted(SCHEMAS.keys() - NO_CLASS))
def test_a_class_has_the_members_of_its_schema(name: str) -> None:
    schema, found = SCHEMAS[name], schema_of(CLASSES[name])
    members, described = found.get("properties", {}), schema.get("properties", {})
    assert members.keys() ^ described.keys() == set(), f"{name} differs from the OpenAPI document"
    assert set(found.get("required", ())) <= set(schema.get("required", ())), "required, and may be missing"
    wrong = {
        member: (shape(members[member]), shape(described[member]))
        for member in members
        if not lenient(shape(members[member]), shape(described[member]))
    }
    assert not wrong, f"{name}: (client's, API's)"


def test_a_difference_is_found() -> None:
    """The comparison itself: a type that is too narrow, and one that is another."""
    number: Schema = {"type": "number"}
    assert not lenient(shape(number), shape({"anyOf": [number, {"type": "null"}]}))
    assert not lenient(shape({"type": "integer"}), shape(number))
    assert not lenient(
        shape({"type": "object", "additionalProperties": {"$ref": "#/$defs/Latest"}}),
        shape({"type": "object", "additionalProperties": {"$ref": "#/x/Problem"}}),
    )
    assert lenient(shape({"$ref": "#/$defs/Latest"}), shape({"$ref": "#/components/schemas/Latest"}))


def test_members_that_are_not_known_yet_are_kept() -> None:
    skill = models.Skill.model_validate({"value": 0.1, "low": None, "high": None, "newer": 7})
    assert skill.model_dump()["newer"] == 7
