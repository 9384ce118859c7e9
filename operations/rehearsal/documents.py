"""The documents that are generated from the templates, the configuration's types
and those of the exported tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from operations.deployment import rights
from operations.rehearsal import checked_by, configuration, permissions
from operations.rehearsal.creation import Created
from operations.rehearsal.synthesis import ROOT
from operations.rehearsal.template import Templates

COMMAND = ".venv/bin/python -m operations document"
PERMISSIONS = ROOT / "docs" / "permissions.md"
CHECKED_BY = ROOT / "docs" / "checked-by.md"
DATA_DICTIONARY = ROOT / "docs" / "data-dictionary.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"


def texts(environments: Mapping[str, Templates], created: Mapping[str, Created]) -> dict[Path, str]:
    """What the documents should contain."""
    from local.export import dictionary  # heavy, and only here

    return {
        PERMISSIONS: permissions.document(environments),
        CHECKED_BY: checked_by.document(environments, created),
        CONFIGURATION: configuration.document(),
        DATA_DICTIONARY: dictionary.document(),
        rights.DOCUMENT: rights.document(rights.DOCUMENT.read_text("utf-8")),
    }
