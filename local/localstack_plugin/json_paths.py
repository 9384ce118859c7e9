"""A deviation of LocalStack's Step Functions from AWS's, patched in its process.

A JSONPath with a wildcard that has exactly one match gives that match there, in AWS a list of one
(localstack-core 2026.3.0, `stepfunctions/asl/utils/json_path.py`). A state machine that is right in AWS then
fails as soon as a Map state had one item.
"""

from __future__ import annotations

import sys
from typing import Any

from localstack.services.stepfunctions.asl.utils import json_path

_PACKAGE = "localstack.services.stepfunctions."
_emulators_own = json_path.extract_json


def extract_json(path: str, data: Any) -> Any:
    """What `path` selects from `data`: a list if it has a wildcard, however many match."""
    if "[*]" in path:
        return [match.value for match in json_path.parse(path).find(data)]
    return _emulators_own(path, data)


def give_lists_for_wildcards() -> None:
    """Put `extract_json` in the place of LocalStack's, in modules that have imported it already too."""
    for name, module in list(sys.modules.items()):
        if name.startswith(_PACKAGE) and getattr(module, "extract_json", None) is _emulators_own:
            setattr(module, "extract_json", extract_json)  # noqa: B010 (no attribute that mypy knows)
