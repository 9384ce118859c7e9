"""What moto makes of each environment, once for all tests."""

from __future__ import annotations

import pytest

from operations.rehearsal.creation import Created, create
from operations.rehearsal.rehearse import templates_of
from operations.rehearsal.synthesis import Synthesised
from operations.rehearsal.template import Templates


@pytest.fixture(scope="session")
def all_templates(environments: dict[str, Synthesised]) -> dict[str, Templates]:
    return {name: templates_of(synthesised) for name, synthesised in environments.items()}


@pytest.fixture(scope="session")
def created(all_templates: dict[str, Templates]) -> dict[str, Created]:
    return {name: create(templates) for name, templates in all_templates.items()}
