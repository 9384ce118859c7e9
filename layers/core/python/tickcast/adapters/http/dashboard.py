"""The dashboard: one page with its own script and style, whose policy forbids everything else."""

from __future__ import annotations

import base64
import hashlib
import re

from tickcast.adapters.http.responses import Response


def dashboard(page: str, cache_control: str) -> Response:
    """`page` with a policy by which a browser runs its own script and style only, and calls this API only."""
    policy = {
        "default-src": "'none'",
        "script-src": _hashes(page, "script"),
        "style-src": _hashes(page, "style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return Response(
        200,
        text=page,
        content_type="text/html; charset=utf-8",
        cache_control=cache_control,
        headers={
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        },
    )


def _hashes(page: str, element: str) -> str:
    """The digests of all inline `element`s, in the form that a policy has them."""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
