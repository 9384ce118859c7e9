"""Binance's REST, as far as tickcast needs it: aggregate trades for history, and what is newest of a symbol
for ingest to tell a quiet market from a dead stream, with the exchange's limits kept.

Every address may use so much weight a minute, and each answer tells how much of it is used, by whomever. Well
before the limit the client waits for the next minute. What the exchange refuses becomes a named error: who
calls decides from the name whether to wait, to try again, or to give up. Only what may be over in a moment
(5xx, a lost connection) is tried again in here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import urllib3

from tickcast.session import Newest
from tickcast.ticks import TickError, check_trade, mantissa

PAGE = 1000
TICKERS = 20  # symbols a request of tickers: up to so many weigh as little as one
WEIGHT_SHARE = 0.8  # of the limit: others at the same address may use the rest
_FALLBACK_LIMIT = 6000
_MICROSECONDS_FROM = 10**14  # a time this large is in µs, a smaller one in ms
_DEFAULT_WAIT_S = 60  # what is waited for where `Retry-After` does not say
_MINUTE_S = 60
_SHOWN = 200  # characters of an answer that is told of


class RestError(RuntimeError):
    """The exchange did not answer as asked; the message says what it said and what to do."""


class RegionRefused(RestError):
    """451: not from this country or region."""


class Forbidden(RestError):
    """403: the exchange's firewall."""


class RequestRefused(RestError):
    """Another 4xx, such as an unknown symbol: repeating it would be refused again."""


class ExchangeUnavailable(RestError):
    """No answer, 5xx or no JSON, several times: worth another try later."""


class RateLimited(RestError):
    """429, or 418 for who went on regardless. `retry_after_s` is how long to keep silent."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AggTrade(NamedTuple):
    """Trades `first_id` to `last_id` of one taker order at one price. Mantissas at 1e-8.

    A placeholder, of which the exchange keeps nothing but the id, has `first_id` -1.
    """

    id: int
    first_id: int
    last_id: int
    time_us: int
    price: int
    qty: int
    side: int  # the aggressor's: +1 buyer, -1 seller


class BinanceRest:
    """A client of the exchange at `url`. `used_weight` and `requests` tell what was asked of it."""

    def __init__(
        self,
        url: str,
        *,
        clock_s: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        backoff_s: float = 0.5,
        timeout_s: float = 15.0,
        retries: int = 4,
    ) -> None:
        self.used_weight = 0  # of this minute, at this address, as the last answer told
        self.requests = 0
        self._url = url.rstrip("/")
        self._clock_s = clock_s
        self._sleep = sleep
        self._told_at_s = float("-inf")
        self._weight_limit: int | None = None
        retrying = urllib3.Retry(
            total=retries,
            backoff_factor=backoff_s,
            backoff_jitter=backoff_s,
            status_forcelist=(500, 502, 503, 504),
            raise_on_status=False,
            respect_retry_after_header=False,  # of 429 and 418, which are not repeated in here
        )
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(5.0, timeout_s), read=timeout_s),
            retries=retrying,
            headers={"X-MBX-TIME-UNIT": "MICROSECOND"},
        )

    def agg_trades_between(self, symbol: str, from_ms: int, to_ms: int) -> list[AggTrade]:
        """At most `PAGE` aggregates of `[from_ms, to_ms)`, less than an hour, ascending.

        Where there are more the exchange has been seen to give the first ones as well as the last ones.
        """
        return self._agg_trades(symbol, startTime=from_ms, endTime=to_ms - 1)

    def agg_trades_from(self, symbol: str, agg_id: int) -> list[AggTrade]:
        """At most `PAGE` aggregates from `agg_id` on, ascending; fewer only at the end of all there are."""
        return self._agg_trades(symbol, fromId=agg_id)

    def newest(self, symbols: Sequence[str]) -> dict[str, Newest]:
        """The newest trade id and the best quote of each of `symbols`. Raises `RestError` or `TickError`."""
        found: dict[str, Newest] = {}
        for at in range(0, len(symbols), TICKERS):
            asked = json.dumps(symbols[at : at + TICKERS], ensure_ascii=False, separators=(",", ":"))
            found |= newest_of(self._get("/api/v3/ticker/24hr", {"symbols": asked}))
        return {symbol: found[symbol] for symbol in symbols if symbol in found}

    def _agg_trades(self, symbol: str, **query: int) -> list[AggTrade]:
        self._keep_below(self._limit(symbol))
        fields = {name: str(value) for name, value in (query | {"limit": PAGE}).items()}
        return agg_trades(symbol, self._get("/api/v3/aggTrades", {"symbol": symbol, **fields}))

    def _limit(self, symbol: str) -> int:
        """The weight allowed a minute, as the exchange says."""
        if self._weight_limit is None:
            info = self._get("/api/v3/exchangeInfo", {"symbol": symbol})
            self._weight_limit = weight_limit(info)
        return self._weight_limit

    def _keep_below(self, limit: int) -> None:
        """Wait for the next minute if most of this one's weight is used."""
        now_s = self._clock_s()
        is_same_minute = self._told_at_s // _MINUTE_S == now_s // _MINUTE_S
        if is_same_minute and self.used_weight >= WEIGHT_SHARE * limit:
            self._sleep(_MINUTE_S - now_s % _MINUTE_S + 0.5)  # its clock may be behind ours
            self.used_weight = 0

    def _get(self, path: str, query: Mapping[str, str]) -> Any:
        """The JSON of an answer. Raises the error its status stands for."""
        try:
            answer = self._pool.request("GET", self._url + path, fields=query)
        except urllib3.exceptions.HTTPError as error:
            raise ExchangeUnavailable(f"{self._url} does not answer: {error}") from None
        finally:
            self.requests += 1
        self._told_at_s = self._clock_s()
        self.used_weight = int(answer.headers.get("X-MBX-USED-WEIGHT-1M", self.used_weight))
        if answer.status != 200:
            raise _refusal(self._url, answer.status, answer.headers, answer.data)
        try:
            return json.loads(answer.data)
        except ValueError:
            raise ExchangeUnavailable(f"{self._url} answers {answer.data[:_SHOWN]!r}, not JSON") from None


def agg_trades(symbol: str, body: Any) -> list[AggTrade]:
    """The answer of `/api/v3/aggTrades`. Raises `TickError` on a row that no market can have produced."""
    if not isinstance(body, list):
        raise TickError(f"{symbol}: a list of aggregate trades was expected, not {str(body)[:_SHOWN]}")
    return [_agg_trade(symbol, row) for row in body]


def newest_of(body: Any) -> dict[str, Newest]:
    """The answer of `/api/v3/ticker/24hr`, by symbol. Raises `TickError` where it is not one."""
    try:
        return {
            row["symbol"]: Newest(
                row["lastId"] if row["lastId"] >= 0 else None,  # -1: no trade for a day
                (
                    mantissa(row["bidPrice"]),
                    mantissa(row["bidQty"]),
                    mantissa(row["askPrice"]),
                    mantissa(row["askQty"]),
                ),
            )
            for row in body
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise TickError(f"{str(body)[:_SHOWN]} are no tickers ({error!r})") from None


def weight_limit(info: Any) -> int:
    """The weight a minute in the answer of `/api/v3/exchangeInfo`."""
    for limit in info.get("rateLimits", []):
        if (limit.get("rateLimitType"), limit.get("interval")) == ("REQUEST_WEIGHT", "MINUTE"):
            return int(limit["limit"]) // int(limit.get("intervalNum", 1))
    return _FALLBACK_LIMIT


def _agg_trade(symbol: str, row: Any) -> AggTrade:
    try:
        first_id, time_us, is_buyer_maker = row["f"], row["T"], row["m"]
        trade = AggTrade(
            row["a"],
            first_id,
            row["l"],
            time_us if time_us >= _MICROSECONDS_FROM else time_us * 1000,
            mantissa(row["p"]),
            mantissa(row["q"]),
            -1 if is_buyer_maker else 1,
        )
    except (KeyError, TypeError, AttributeError, TickError) as error:
        raise TickError(f"{symbol}: {str(row)[:_SHOWN]} is no aggregate trade ({error!r})") from None
    if first_id >= 0:
        check_trade(symbol, first_id, trade.price, trade.qty)
    return trade


def _refusal(url: str, status: int, headers: Mapping[str, str], data: bytes) -> RestError:
    said = data[:_SHOWN].decode("utf-8", "replace")
    if status in (418, 429):
        waiting = headers.get("Retry-After", "")
        wait_s = int(waiting) if waiting.isdigit() else _DEFAULT_WAIT_S
        return RateLimited(f"{url} answers {status}, wait {wait_s} s: {said}", max(wait_s, 1))
    if status == 451:
        return RegionRefused(
            f"{url} answers 451: Binance does not serve this country or region; deploy to another region, "
            f"such as ap-northeast-1, or run from another place. It said: {said}"
        )
    if status == 403:
        return Forbidden(
            f"{url} answers 403: its firewall refuses this address; stop asking, and find out why before "
            f"going on. It said: {said}"
        )
    if status < 500:
        return RequestRefused(f"{url} answers {status}: {said}")
    return ExchangeUnavailable(f"{url} answers {status}: {said}")
