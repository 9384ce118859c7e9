"""A tab of the browser on the dashboard, with all that the page asks for and reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, TimeoutError

from local.system.api import Api
from tickcast.adapters.http.responses import Response

PATIENCE_MS = 60_000  # also on a machine that does other things
# Reported by the browser itself, of each response with an error's status. 503 is what an overloaded machine's
# own system answers to /health.
_FAILED, _DEGRADED = "Failed to load resource", "status of 503"
_SHOWN = 1500  # characters of the page, where it does not have what it should
_MATCHES = "pattern => new RegExp(pattern, 'i').test(document.body.innerText)"
_TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Reply(NamedTuple):
    """A response of the API."""

    status: int
    body: Any


Change = Callable[[Reply], Reply | None]  # None: nobody answers


@dataclass(frozen=True)
class Answers:
    """What the page gets: the API's own responses, but those to paths that begin with one of `changes`
    changed by it. With `errors` some of them are errors, which a browser reports on its console."""

    changes: Mapping[str, Change] = field(default_factory=dict)
    errors: bool = False

    def change_of(self, path: str) -> Change | None:
        return next((change for start, change in self.changes.items() if path.startswith(start)), None)


@dataclass(frozen=True)
class Look:
    """How the page is looked at."""

    scheme: Literal["light", "dark"] = "light"
    width: int = 1280
    height: int = 900
    reduced_motion: Literal["reduce", "no-preference"] = "no-preference"


DARK = Look("dark")
PHONE = Look(width=390, height=844)
NARROWEST = Look(width=320, height=568)


class Tab:
    """The dashboard of `api` in a tab with a session of its own. `problems` are errors on the console,
    exceptions, and requests to anything but the API."""

    def __init__(
        self, browser: Browser, api: Api, answers: Answers, look: Look, page: Response | None
    ) -> None:
        self.api, self.answers = api, answers
        self._own_page = page  # instead of the one that the API has
        self.requests: list[Request] = []
        self.problems: list[str] = []
        self._root = f"{api.url.rstrip('/')}/"
        self._context = browser.new_context(
            viewport={"width": look.width, "height": look.height},
            color_scheme=look.scheme,
            reduced_motion=look.reduced_motion,
            locale="en-GB",
            timezone_id="UTC",
        )
        self._context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self._context.new_page()
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("request", self._on_request)
        self.page.route(lambda url: url.startswith(self._root), self._answer)

    def go(self, key: str = "", path: str = "") -> None:
        """Open the page, with the key where `make run` puts it."""
        self.page.goto(f"{self._root}{path}" + (f"#key={key}" if key else ""))

    def close(self) -> None:
        self.page.unroute_all(behavior="ignoreErrors")
        self._context.close()

    @property
    def text(self) -> str:
        """All that is visible."""
        return str(self.page.inner_text("body"))

    def says(self, *patterns: str) -> None:
        """Wait until each of the regular expressions (any case) matches some of what is visible."""
        for pattern in patterns:
            try:
                self.page.wait_for_function(_MATCHES, arg=pattern)
            except TimeoutError:
                raise AssertionError(f"no {pattern!r} in what is visible:\n{self.text[:_SHOWN]}") from None

    def never_says(self, pattern: str) -> None:
        found: bool = self.page.evaluate(_MATCHES, pattern)
        assert not found, f"{pattern!r} is visible"

    def wait_for_forecast(self) -> None:
        """Wait until the newest forecast is shown, and what else the page asks for at first."""
        self.page.get_by_role("slider").wait_for()
        self.settle()

    def settle(self) -> None:
        """Wait until the page has shown what it asks for at first: no request for half a second."""
        self.page.wait_for_load_state("networkidle")
        self._wait_for_frames()

    def resize(self, look: Look) -> None:
        """Look at the same page in another way."""
        self.page.set_viewport_size({"width": look.width, "height": look.height})
        self.page.emulate_media(color_scheme=look.scheme, reduced_motion=look.reduced_motion)
        self._wait_for_frames()

    def picture(self, path: Path, *, whole: bool = True) -> None:
        self.page.screenshot(path=path, full_page=whole, animations="disabled", caret="hide")

    def overflow_px(self) -> int:
        """By how much the page is wider than the window."""
        found: int = self.page.evaluate(
            "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return found

    def _wait_for_frames(self) -> None:
        self.page.evaluate(_TWO_FRAMES)

    def _answer(self, route: Route) -> None:
        if route.request.is_navigation_request():
            self._open(route)
            return
        change = self.answers.change_of(route.request.url.removeprefix(self._root))
        if change is None:
            route.continue_()
            return
        real = route.fetch()
        reply = change(Reply(real.status, real.json()))
        if reply is None:
            route.abort("connectionrefused")
        else:
            route.fulfill(response=real, status=reply.status, json=reply.body)

    def _open(self, route: Route) -> None:
        if (page := self._own_page) is None:
            route.continue_()
        else:
            headers = {"Content-Type": page.content_type, **page.headers}
            route.fulfill(status=page.status, body=page.text, headers=headers)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        is_expected = self.answers.errors or _DEGRADED in message.text
        if not (is_expected and message.text.startswith(_FAILED)):
            self.problems.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        self.requests.append(request)
        scheme = urlsplit(request.url).scheme
        if scheme != "data" and not request.url.startswith(self._root):
            self.problems.append(f"request elsewhere: {request.url}")
