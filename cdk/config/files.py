"""An environment's YAML file as keys and values. What YAML would accept in silence, a key that is there
twice, is an error as well."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from cdk.config.wording import shown


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, of which YAML would take the second."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if isinstance(key, Hashable) and (first := seen.setdefault(key, line)) != line:
                raise ValueError(f"line {line}: {shown(key)} a second time, it is in line {first} as well")
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, Any]:
    """The keys and values of a file. Raises ValueError that says where it is wrong."""
    try:
        found = yaml.load(path.read_text("utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(_malformed(error)) from None
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not encoded in UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    if found is None:
        raise ValueError("it is empty; it should have keys and values, like `log_level: INFO`")
    if not isinstance(found, dict):
        raise ValueError(f"it is {shown(found)!r}; it should be keys and values, like `log_level: INFO`")
    return found


def _malformed(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    if "'\\t'" in str(error.problem):
        return f"{where}a tab, which YAML does not take; indent with spaces"
    context = f" {error.context}" if error.context else ""
    return f"{where}not valid YAML: {error.problem}{context}"
