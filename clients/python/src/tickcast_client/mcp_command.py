"""`tickcast-mcp`: the server for assistants, over standard input and output."""

from __future__ import annotations

import logging
import sys


def main() -> None:
    """Serve until standard input ends. Exits with 2 and a message if that cannot begin."""
    # Standard output belongs to the protocol; httpx would log each request.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        from tickcast_client.mcp_server import server
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "mcp":
            raise
        sys.exit(_failed("the server needs mcp: pip install 'tickcast-client[mcp]'"))
    try:
        serving = server()
    except ValueError as error:
        sys.exit(_failed(str(error)))
    serving.run("stdio")


def _failed(why: str) -> int:
    print(f"tickcast-mcp: {why}", file=sys.stderr)
    return 2
