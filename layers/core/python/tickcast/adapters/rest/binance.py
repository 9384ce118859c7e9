"""The part of Binance's REST API that tickcast needs, within the exchange's limits: aggregate trades for
history, its time, and the newest trade and quote of a symbol, by which ingest distinguishes a quiet market
from a dead stream.

Each address may use a certain weight a minute, and every answer says how much of it is used. Well before the
limit the client waits for the next minute. A refusal becomes an error of its own type, by which the caller
decides to wait, to retry or to give up. Only transient failures (5xx, a lost connection) are retried here.

Only JSON with status 200 is accepted. Firewalls, proxies and portals answer in the exchange's place with
HTML, a redirect or nothing at all, and not always with an error status.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Annotated, Any

import msgspec
import urllib3
from msgspec import Meta, Struct

from tickcast.adapters import json_text
from tickcast.adapters.redaction import describe
from tickcast.adapters.rest.agg_trades import AggTrade
from tickcast.market.liveness import Newest
from tickcast.market.ticks import TickError, check_trade, mantissa

PAGE = 1000
_UNKNOWN_FOR_S = 3600  # how long a symbol that the exchange does not have is left out
TICKERS = 20  # symbols in a request for tickers: up to this many cost the weight of one
WEIGHT_SHARE = 0.8  # of the limit: the rest is for others at the same address
_FALLBACK_LIMIT = 6000
_MICROSECONDS_FROM = 10**14  # a time this large is in µs, a smaller one in ms
_LONGEST_BODY = 8 * 2**20  # bytes; a full page has 0.2 MB
_DEFAULT_WAIT_S = 60  # without a `Retry-After`
_LONGEST_WAIT_S = 3 * 86_400  # the exchange's longest ban
_MINUTE_S = 60
_MOST_ODD = 10  # rows of a page that are of another form by mistake
_SHOWN = 200  # characters of an answer quoted in an error
_WAF_ACTION = (
    "x-amzn-waf-action"  # AWS WAF wants a browser to prove itself: `challenge` (202), `captcha` (405)
)


class RestError(RuntimeError):
    """The exchange did not answer the request; the message quotes its answer and says what to do."""


class RegionRefused(RestError):
    """451: not from this country or region."""


class Forbidden(RestError):
    """The exchange's firewall: 403, or a challenge that only a browser can answer (202)."""


class RequestRefused(RestError):
    """Another 4xx, such as an unknown symbol: a retry would be refused again."""


class ExchangeUnavailable(RestError):
    """No answer, 5xx several times, or an answer that is not the exchange's: worth a retry later."""


class RateLimited(RestError):
    """429, 418 (a ban), or 503 with a time to wait: send nothing for `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BinanceRest:
    """A client of the exchange at `url`; `requests` counts what was sent."""

    def __init__(
        self,
        url: str,
        *,
        clock_s: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        backoff_s: float = 0.5,
        timeout_s: float = 15.0,
        tries: int = 5,
    ) -> None:
        self.used_weight = 0  # of this minute, at this address, according to the last answer
        self.requests = 0
        self._url = url.rstrip("/")
        self._clock_s = clock_s
        self._sleep = sleep
        self._answered_at_s = float("-inf")
        self._weight_limit: int | None = None
        self._unknown_until_s: dict[str, float] = {}  # symbols that the exchange does not have
        self._backoff_s = backoff_s
        self._tries = tries
        # No retries (`_get` does them) and no redirects: another host's answers are not the exchange's.
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(5.0, timeout_s), read=timeout_s),
            retries=False,
            headers={"X-MBX-TIME-UNIT": "MICROSECOND"},
        )

    def agg_trades_between(self, symbol: str, from_ms: int, to_ms: int) -> list[AggTrade]:
        """At most `PAGE` aggregates of `[from_ms, to_ms)`, less than an hour, ascending.

        If there are more, the exchange may return the first ones or the last ones.
        """
        return self._agg_trades(symbol, startTime=from_ms, endTime=to_ms - 1)

    def agg_trades_from(self, symbol: str, agg_id: int) -> list[AggTrade]:
        """At most `PAGE` aggregates from `agg_id` on, ascending.

        A shorter page proves nothing: the exchange may cap pages, or its database may lag.
        """
        return self._agg_trades(symbol, fromId=agg_id)

    def newest(self, symbols: Sequence[str]) -> dict[str, Newest]:
        """The newest trade id and the best quote of each of `symbols` that the exchange has.

        Raises `RestError` or `TickError`.
        """
        now_s = self._clock_s()
        known = [symbol for symbol in symbols if now_s >= self._unknown_until_s.get(symbol, now_s)]
        found: dict[str, Newest] = {}
        for at in range(0, len(known), TICKERS):
            group = known[at : at + TICKERS]
            try:
                found |= self._tickers(group)
            except RequestRefused:  # a symbol that the exchange does not have must not affect the others
                for symbol in group:
                    try:
                        found |= self._tickers([symbol])
                    except RequestRefused:
                        self._unknown_until_s[symbol] = now_s + _UNKNOWN_FOR_S
        return {symbol: found[symbol] for symbol in known if symbol in found}

    def _tickers(self, symbols: Sequence[str]) -> dict[str, Newest]:
        names = json.dumps(symbols, ensure_ascii=False, separators=(",", ":"))
        return newest_of(self._get("/api/v3/ticker/24hr", {"symbols": names}))

    def newest_agg_trades(self, symbol: str) -> list[AggTrade]:
        """The newest aggregates there are, at most `PAGE`, ascending."""
        return self._agg_trades(symbol)

    def market_status(self, symbol: str) -> str | None:
        """The state of a market, such as TRADING, HALT or BREAK; None where the exchange does not say."""
        info = self._get("/api/v3/exchangeInfo", {"symbol": symbol})
        with contextlib.suppress(msgspec.ValidationError):
            for market in msgspec.convert(info, _ExchangeInfo).symbols:
                if market.symbol == symbol:
                    return market.status
        return None

    def time_us(self) -> int:
        """The exchange's time. Raises `RestError`."""
        answer = self._get("/api/v3/time", {})
        try:
            time = msgspec.convert(answer, _Time).server_time
        except msgspec.ValidationError as error:
            raise ExchangeUnavailable(f"{self._url} answers {_shortened(str(answer))}: {error}") from None
        return time if time >= _MICROSECONDS_FROM else time * 1000

    def _agg_trades(self, symbol: str, **query: int) -> list[AggTrade]:
        self._keep_below(self._limit(symbol))
        fields = {name: str(value) for name, value in (query | {"limit": PAGE}).items()}
        return agg_trades(symbol, self._get("/api/v3/aggTrades", {"symbol": symbol, **fields}))

    def _limit(self, symbol: str) -> int:
        """The weight allowed a minute, as the exchange says."""
        if self._weight_limit is None:
            self._weight_limit = weight_limit(self._get("/api/v3/exchangeInfo", {"symbol": symbol}))
        return self._weight_limit

    def _keep_below(self, limit: int) -> None:
        """Wait for the next minute if most of this one's weight is used."""
        now_s = self._clock_s()
        is_same_minute = self._answered_at_s // _MINUTE_S == now_s // _MINUTE_S
        if is_same_minute and self.used_weight >= WEIGHT_SHARE * limit:
            self._sleep(_MINUTE_S - now_s % _MINUTE_S + 0.5)  # its clock may be behind the local one
            self.used_weight = 0

    def _get(self, path: str, query: Mapping[str, str]) -> Any:
        """The JSON of an answer; transient failures are retried. Raises `RestError`."""
        for attempt in range(1, self._tries + 1):
            try:
                status, headers, data = self._ask(path, query)
            except urllib3.exceptions.HTTPError as error:
                if attempt == self._tries:
                    text = _shortened(describe(error))
                    raise ExchangeUnavailable(f"{self._url} does not answer: {text}") from None
            else:
                is_transient = status >= 500 and _WAF_ACTION not in headers and "Retry-After" not in headers
                if not is_transient or attempt == self._tries:
                    break
            if attempt > 1:
                self._sleep(self._backoff_s * (2 ** (attempt - 1) + random.random()))
        if status != 200 or _WAF_ACTION in headers:
            raise _refusal(self._url, status, headers, data, self._clock_s())
        return _json(self._url, headers, data)

    def _ask(self, path: str, query: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of one answer. Raises `HTTPError`, and `ExchangeUnavailable` if the body
        is too long."""
        self.requests += 1
        answer = self._pool.request(
            "GET", self._url + path, fields=query, redirect=False, preload_content=False
        )
        self._answered_at_s = self._clock_s()
        used = answer.headers.get("X-MBX-USED-WEIGHT-1M", "")
        if used.isascii() and used.isdigit():
            self.used_weight = int(used[:9])
        try:
            data = answer.read(_LONGEST_BODY + 1, decode_content=True)
        except urllib3.exceptions.HTTPError:
            answer.close()
            raise
        if len(data) > _LONGEST_BODY:
            answer.close()
            raise ExchangeUnavailable(
                f"{self._url} answers {answer.status} with more than {_LONGEST_BODY:,} bytes: "
                f"{_shortened(data)}"
            )
        answer.release_conn()
        return answer.status, answer.headers, data


Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class _Time(Struct, rename="camel"):
    server_time: Annotated[int, Meta(gt=0, le=2**63 - 1)]  # ms or µs


class _RateLimit(Struct, rename="camel"):
    rate_limit_type: str = ""
    interval: str = ""
    interval_num: Int64 = 1
    limit: Int64 = 0


class _MarketInfo(Struct):
    symbol: str
    status: str


class _ExchangeInfo(Struct, rename="camel"):
    rate_limits: list[_RateLimit] = []
    symbols: list[_MarketInfo] = []


class _Ticker(Struct, rename="camel"):
    symbol: str
    last_id: Int64  # -1: no trade for a day
    bid_price: str
    bid_qty: str
    ask_price: str
    ask_qty: str


_AGG_TRADE_NAMES = dict(id="a", price="p", qty="q", first_id="f", last_id="l", time="T", is_buyer_maker="m")


class _AggTradeRow(Struct, rename=_AGG_TRADE_NAMES):
    id: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    price: str
    qty: str
    first_id: Int64
    last_id: Int64
    time: Int64  # ms or µs
    is_buyer_maker: bool


class _AggTradeId(Struct, rename=_AGG_TRADE_NAMES):
    """All that is needed of a row that is none."""

    id: Annotated[int, Meta(ge=0, le=2**63 - 1)]


def weight_limit(info: Any) -> int:
    """The weight a minute in the answer of `/api/v3/exchangeInfo`; a usual one if it does not say."""
    with contextlib.suppress(msgspec.ValidationError):
        for each in msgspec.convert(info, _ExchangeInfo).rate_limits:
            is_weight = (each.rate_limit_type, each.interval) == ("REQUEST_WEIGHT", "MINUTE")
            if is_weight and 0 < each.interval_num <= each.limit:
                return each.limit // each.interval_num
    return _FALLBACK_LIMIT


def newest_of(body: Any) -> dict[str, Newest]:
    """The answer of `/api/v3/ticker/24hr`, by symbol. Raises `TickError` where it is not one."""
    try:
        tickers = msgspec.convert(body, list[_Ticker])
    except msgspec.ValidationError as error:
        raise TickError(f"{str(body)[:_SHOWN]} are no tickers ({error})") from None
    newest = {}
    for each in tickers:
        bid, ask = (each.bid_price, each.bid_qty), (each.ask_price, each.ask_qty)
        (bid_price, bid_qty), (ask_price, ask_qty) = (map(mantissa, side) for side in (bid, ask))
        last_id = each.last_id if each.last_id >= 0 else None
        newest[each.symbol] = Newest(last_id, (bid_price, bid_qty, ask_price, ask_qty))
    return newest


def agg_trades(symbol: str, body: Any) -> list[AggTrade]:
    """The answer of `/api/v3/aggTrades`. Raises `TickError` where it is not a list of such rows.

    A row whose values are impossible in any market has the reason in `why`; the others are not affected. The
    same is done with rows of another form that have an id, unless they are many: then it is another API.
    """
    if not isinstance(body, list):
        raise TickError(f"{symbol}: a list of aggregate trades was expected, not {_shortened(str(body))}")
    rows, errors = [], []
    for data in body:
        try:
            rows.append(_agg_trade(symbol, data))
        except msgspec.ValidationError as error:
            raw = _shortened(str(data))
            errors.append(f"{raw} is no aggregate trade ({error})")
            rows.append(AggTrade(_id_of(data), -1, -1, -1, 0, 0, 0, errors[-1], raw))
    if len(errors) > _MOST_ODD or any(row.id < 0 for row in rows):
        raise TickError(f"{symbol}: {errors[0]}")
    return rows


def _id_of(data: Any) -> int:
    """The id of a row of another form; -1 if it has none."""
    try:
        return msgspec.convert(data, _AggTradeId).id
    except msgspec.ValidationError:
        return -1


def _agg_trade(symbol: str, data: Any) -> AggTrade:
    """Raises `msgspec.ValidationError` for a row of another form."""
    row = msgspec.convert(data, _AggTradeRow)
    first_id, last_id, time_us = row.first_id, row.last_id, row.time
    if (first_id, last_id) == (-1, -1):
        return AggTrade(row.id, -1, -1, -1, 0, 0, 0)  # a placeholder's time and price mean nothing
    price = qty = 0
    why = ""
    try:
        price, qty = mantissa(row.price), mantissa(row.qty)
        check_trade(symbol, first_id, price, qty)
    except TickError as error:
        why = _shortened(str(error))
    if not 0 <= first_id <= last_id:
        first_id = last_id = -1
        why = "its trade ids are impossible"
    if time_us <= 0:
        why = "its time is impossible"
    elif time_us < _MICROSECONDS_FROM:
        time_us *= 1000
    raw = _shortened(str(data)) if why else ""
    return AggTrade(row.id, first_id, last_id, time_us, price, qty, -1 if row.is_buyer_maker else 1, why, raw)


def _json(url: str, headers: Mapping[str, str], data: bytes) -> Any:
    """The JSON of a body with status 200. Raises `ExchangeUnavailable` if it is none."""
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise ExchangeUnavailable(f"{url} answers {kind[:_SHOWN]}, not JSON: {_shortened(data)}")
    try:
        return json_text.read(data)
    except ValueError:
        raise ExchangeUnavailable(f"{url} answers {_shortened(data) or 'nothing'!r}, not JSON") from None


def _wait_s(headers: Mapping[str, str], now_s: float) -> int:
    """The seconds to wait by `Retry-After`, which names them or a date."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+", text):
        wait_s = int(text[:9])
    else:
        try:
            until = parsedate_to_datetime(text)
            wait_s = int((until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now_s) + 1
        except (ValueError, TypeError, OverflowError):
            wait_s = _DEFAULT_WAIT_S
    return min(max(wait_s, 1), _LONGEST_WAIT_S)


def _shortened(text: bytes | str) -> str:
    """The beginning of a text on one line, without control characters."""
    if isinstance(text, bytes):
        text = text[: 4 * _SHOWN].decode("utf-8", "replace")
    one_line = " ".join(text[: 4 * _SHOWN].split())
    return "".join(c if c.isprintable() else "?" for c in one_line[:_SHOWN])


def _refusal(url: str, status: int, headers: Mapping[str, str], data: bytes, now_s: float) -> RestError:
    quoted = _shortened(data)
    if status in (418, 429) or (status == 503 and "Retry-After" in headers):
        wait_s = _wait_s(headers, now_s)
        return RateLimited(f"{url} answers {status}, wait {wait_s} s: {quoted}", wait_s)
    if status == 451:
        return RegionRefused(
            f"{url} answers 451: Binance does not serve this country or region; deploy to another region, "
            f"such as ap-northeast-1, or run from another place. It said: {quoted}"
        )
    if status in (202, 403) or _WAF_ACTION in headers:
        return Forbidden(
            f"{url} answers {status}: its firewall refuses this address; stop asking, and find out why "
            f"before continuing. It said: {quoted}"
        )
    if status < 400:
        where = _shortened(headers.get("Location", "")) or "nowhere"
        return ExchangeUnavailable(
            f"{url} answers {status}, which points to {where}: not the exchange's answer; is REST_URL right? "
            f"It said: {quoted}"
        )
    if status < 500:
        return RequestRefused(f"{url} answers {status}: {quoted}")
    return ExchangeUnavailable(f"{url} answers {status}: {quoted}")
