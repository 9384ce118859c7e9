"""What the author of a model may say of it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.fixtures.imported import NOW_US, description, document
from tickcast.adapters.registry.model_description import description_from
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.model.forecast import HORIZONS_S, ModelError


def test_a_description_has_defaults_for_a_whole_path() -> None:
    given = {"name": "mine", "learned_to": "2026-01-02T03:00", "feature_hash": FEATURE_HASH}
    found = description_from(given, NOW_US)
    assert (found.output, found.inputs, found.instants_s) == ("path", FEATURE_NAMES, HORIZONS_S)
    assert found.learned_to_us == description(learned_to="2026-01-02T04:00:00+01:00").learned_to_us


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": " "}, "name"),
        ({"name": 5}, "name"),
        ({"learned_to": "yesterday"}, "learned_to is 'yesterday'; it should be a time like"),
        (
            {"learned_to": "2099-01-01T00:00:00Z"},
            "learned_to is '2099-01-01T00:00:00Z', which is in the future",
        ),
        ({"feature_hash": "0" * 16}, f"this code computes '{FEATURE_HASH}'"),
        ({"output": "prices"}, "output"),
        ({"inputs": ["imbalance", "moon"]}, "'moon' in inputs is no feature"),
        ({"inputs": ["imbalance", "imbalance"]}, "no feature twice"),
        ({"inputs": []}, "each column"),
        ({"instants_s": [1, 2, 5]}, "instants_s is [1.0, 2.0, 5.0]; it should have 1, 2, 5, 10"),
        ({"instants_s": [1, 2, 4, 5, 10]}, "instants_s"),
        ({"instants_s": [2, 1, 5, 10]}, "in the order of time"),
        ({"output": "path"}, "inputs is for output moves_bp or moves_sigma"),
        ({"author": "me"}, "author"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused_by_its_field(
    fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(named)):
        description_from(document(**fields), NOW_US)
