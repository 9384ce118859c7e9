"""Remove secrets from texts. Libraries put their arguments into their errors: a header's value, a connection
string, a signed address. `redact` cleans such a text before it is logged, stored or shown.

It removes the values given, those of this process's environment variables with names of secrets, and whatever
has the form of a secret.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

HIDDEN = "***"
_SHORTEST = 8  # characters: a shorter value would also occur in ordinary words
_SHOWN = 500  # characters of an error's text
_LONGEST = 16_384  # characters of any text: more than a stack trace has
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|(^|_)PASS$|API_?KEY|ACCESS_?KEY|(^|_)KEY$", re.I)
# Nothing that can fail may follow an unbounded repeat: matching would take quadratic time. Unbounded repeats
# stand at the end of a pattern only.
_PATTERNS = tuple(
    (re.compile(pattern, re.I), replacement)
    for pattern, replacement in (
        # user:password@ of an address
        (r"(://)[^\s/@'\"]{0,2000}@", rf"\1{HIDDEN}@"),
        # a parameter of a signed address: AWS's, and others' of the usual names
        (
            r"([?&;](?:[\w.-]{0,64}(?:signature|token|credential|secret|password|key))=)[^&\s'\"]+",
            rf"\1{HIDDEN}",
        ),
        # a header
        (
            r"(\b(?:x-mbx-apikey|x-api-key|(?:proxy-)?authorization|x-amz-security-token|(?:set-)?cookie)"
            r"['\"]?\s{0,30}(?::|=|,|header:)\s{0,30})[^\r\n]+",
            rf"\1{HIDDEN}",
        ),
        # password='…' of a connection string, "password": "…" of JSON or a dictionary; to the end of the text
        # if the quotation does not end
        (
            r"((?:password|passwd|secret|secret_?access_?key|session_?token|api_?key)"
            r"['\"]?\s{0,30}[=:]\s{0,30})"
            r"('(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s,;&}]+)",
            rf"\1{HIDDEN}",
        ),
        # an AWS access key id
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", HIDDEN),
    )
)


def redact(text: str, *secrets: str) -> str:
    """The beginning of `text`, at most `_LONGEST` characters, without `secrets` and what looks like one."""
    named = (value for name, value in os.environ.items() if _SECRET_NAME.search(name))
    for value in (*secrets, *named):
        for form in _forms(value):
            text = text.replace(form, HIDDEN)
    text = _bounded(text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _bounded(text: str) -> str:
    """The first words of `text`, at most `_LONGEST` characters. It is cut between words: no pattern would
    recognise half a secret."""
    if len(text) <= _LONGEST:
        return text
    words = re.match(r"(?s).*\s|", text[:_LONGEST])
    return f"{words[0] if words else ''}… ({len(text)} characters)"


def describe(error: BaseException, *secrets: str) -> str:
    """An error of a library as text: its class and its message, redacted, on one line of bounded length."""
    message = " ".join(redact(str(error), *secrets).encode(errors="replace").decode().split())
    name = type(error).__name__
    return f"{name}: {message[:_SHOWN]}" if message else name


def _forms(value: str) -> Iterator[str]:
    """The forms of a secret in a text: unchanged, stripped, escaped, percent-encoded."""
    stripped = value.strip()
    if len(stripped) < _SHORTEST:
        return
    escaped = (repr(value)[1:-1], repr(stripped)[1:-1], json.dumps(value)[1:-1], json.dumps(stripped)[1:-1])
    encoded = (quote(stripped, safe=""), quote_plus(stripped))
    yield from sorted({value, stripped, *escaped, *encoded}, key=len, reverse=True)
