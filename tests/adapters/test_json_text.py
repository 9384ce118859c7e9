"""Reading and writing JSON without the NaN and Infinity that Python allows."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickcast.adapters import json_text
from tickcast.adapters.json_text import JsonError

NAN, INF = math.nan, math.inf
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refuse(word: str) -> Any:
    raise AssertionError(f"{word} is no JSON")


@given(anything)
def test_whatever_is_written_is_json_and_can_be_read(value: Any) -> None:
    written = json_text.text(value)
    assert json.loads(written, parse_constant=refuse) == json_text.finite(value)
    assert json_text.read(written) == json_text.finite(value)


def test_a_number_that_is_not_finite_is_written_as_null() -> None:
    value: dict[Any, Any] = {"a": [1.5, NAN, {"b": (-INF,)}], "c": np.float64("nan"), NAN: 1}
    assert json_text.text(value) == '{"a": [1.5, null, {"b": [null]}], "c": null, "nan": 1}'
    assert value["a"][0] == 1.5  # and the value itself stays


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (NAN, "the value is nan"),
        ({"calibration": {"1": {"direction_slope": NAN}}}, "calibration.1.direction_slope is nan"),
        ({"rows": [1.0, INF]}, r"rows\[1\] is inf"),
    ],
)
def test_strict_refuses_such_a_number_and_names_its_place(value: Any, place: str) -> None:
    with pytest.raises(JsonError, match=place):
        json_text.strict(value)
    assert json_text.strict({"a": [1.5, None]}) == '{"a": [1.5, null]}'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": {"b": NaN}}', "a.b is nan"),
        ('{"a": [0, -Infinity]}', r"a\[1\] is -inf"),
        ('{"a": 1e999}', "a is inf"),
        ("{not json", "Expecting property name"),
        (b"\xff\xfe{", "decode"),
        ("[" * 100_000, "nested too deeply"),
        ("", "Expecting value"),
        ("9" * 5000, "digits"),
    ],
)
def test_read_refuses_all_but_json(text: str | bytes, why: str) -> None:
    with pytest.raises(JsonError, match=why):
        json_text.read(text)
