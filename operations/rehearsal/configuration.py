"""`docs/configuration.md`: every key of an environment's file, from the types of `cdk.config`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from msgspec import NODEFAULT, Struct, structs

from cdk.config import FOLDER, Environment, files
from cdk.config.wording import Section, is_list, sections, should_be, shown, struct_of
from operations.rehearsal.synthesis import ENVIRONMENTS

_HEAD = """# Configuration

Every setting of an environment, from [cdk/config/](../cdk/config/): `local.yaml` is `make run`, `dev.yaml`
and `prod.yaml` are deployed. A file holds what differs from the defaults here; a key that is not listed is
an error, which names those there are. `make diff ENV=dev` shows what a change would do, `make cost ENV=dev`
what it would cost, and `make deploy ENV=dev` applies it. Generated:
`.venv/bin/python -m operations document`.

The last columns show what the three files set; where they are empty the default applies. Without `aws` there
is no account: dev and prod need it, though `aws: {}` will do.
"""


def document() -> str:
    """The whole page."""
    given = {name: files.read(FOLDER / f"{name}.yaml") for name in ENVIRONMENTS}
    parts = [_HEAD]
    described: set[type[Struct]] = set()
    for section in sections(Environment):
        if section.kind in described:
            continue  # the sizes of another function
        described.add(section.kind)
        parts.append(_part(section, given))
    return "\n".join(parts)


def _part(section: Section, given: Mapping[str, Mapping[str, Any]]) -> str:
    """One section: its text, and a table of its keys. What is a section itself comes later."""
    names: tuple[str, ...] = ENVIRONMENTS
    path, title = section.path, f"`{section.path}`" if section.path else "At the top of the file"
    if path.startswith("functions."):
        path, title, names = "functions.*", "`functions.*`, each function", ()
    rows = [["key", "should be", "default", *names], ["---"] * (3 + len(names))]
    for key in section.keys:
        full = f"{path}.{key.name}".lstrip(".")
        if path == "functions":
            wanted = "`functions.*`"
        elif is_list(key.kind) and struct_of(key.kind):
            wanted = f"a list, each with the keys of [`{full}`](#{full.replace('.', '')})"
        elif struct_of(key.kind):
            continue
        else:
            wanted = should_be(key.kind).replace("|", "\\|")
        default = "none, required" if key.default is NODEFAULT else f"`{_yaml(key.default)}`"
        rows.append([f"`{full}`", wanted, default, *(_set(given[name], full) for name in names)])
    table = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([f"## {title}", "", inspect.getdoc(section.kind) or "", "", *table, ""])


def _set(given: Mapping[str, Any], path: str) -> str:
    """What a file sets."""
    found: Any = given
    for step in path.split("."):
        if not isinstance(found, Mapping) or step not in found:
            return ""
        found = found[step]
    return f"`{_yaml(found)}`"


def _yaml(value: Any) -> str:
    """In YAML's flow style."""
    if isinstance(value, Struct):
        return _yaml({name: each for name, each in structs.asdict(value).items() if each is not None})
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    return shown(value)
