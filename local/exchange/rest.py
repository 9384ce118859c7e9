"""The part of Binance's REST API that serves history, and endpoints of our own for tests.

Every `/api/` request is charged its weight per address and minute. The used weight comes back in a
header; above the limit the response is 429 with the seconds to wait. Errors are Binance's JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

from local.exchange.assets import assets_of
from local.exchange.events import Levels, Quote, decimal
from local.exchange.fault_requests import RestRows
from local.exchange.history import AggTrade
from local.exchange.market import Market, Now
from local.exchange.rest_faults import visible_rows, with_row_faults

WEIGHT_LIMIT = 6_000  # per minute
_WEIGHTS = {"/api/v3/aggTrades": 4, "/api/v3/exchangeInfo": 20, "/api/v3/ticker/24hr": 2}
_DEPTH_WEIGHTS = ((100, 5), (500, 25), (1_000, 50), (5_000, 250))  # up to so many levels
_MAX_AGG_TRADES, _MAX_LEVELS = 1_000, 5_000
_MICROSECONDS_FROM = 10**14  # a time parameter this large states µs, a smaller one ms


class ApiError(Exception):
    """A request that gets an error: HTTP status, Binance's code and message, when to retry."""

    def __init__(
        self, code: int, message: str, status: int = 400, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "msg": message}
        self.headers = {} if retry_after_s is None else {"Retry-After": str(max(math.ceil(retry_after_s), 1))}


class Faults(Protocol):
    """The active faults: see `FaultInjector`."""

    def row_faults(self, symbol: str) -> Sequence[RestRows]: ...

    def market_status(self, symbol: str) -> str: ...


class RestApi:
    """The endpoints over the markets of one exchange."""

    def __init__(self, markets: Mapping[str, Market], feed: str, now_us: Now, faults: Faults) -> None:
        self._markets = markets
        self._feed = feed
        self._now_us = now_us
        self._faults = faults
        self.epoch_us: int | None = None  # where a simulated history starts
        self._used: dict[
            str | None, tuple[int, int]
        ] = {}  # by address: a clock minute and the weight used in it

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/v3/ping", self.ping),
            web.get("/api/v3/time", self.time),
            web.get("/api/v3/exchangeInfo", self.exchange_info),
            web.get("/api/v3/aggTrades", self.agg_trades),
            web.get("/api/v3/depth", self.depth),
            web.get("/api/v3/ticker/24hr", self.tickers),
            web.get("/local/sent", self.sent),
            web.get("/local/quote", self.quote),
            web.post("/local/mids", self.mids),
        ]

    # ------------------------------------------------------------------------------------- every request

    @web.middleware
    async def answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Charge the request's weight, and turn errors into responses."""
        used = self._charge(request) if request.path.startswith("/api/") else None
        try:
            if used is not None and used > WEIGHT_LIMIT:
                message = f"Too much request weight used; current limit is {WEIGHT_LIMIT} per 1 MINUTE."
                rest_of_minute_s = 60 - self._now_us() / 1e6 % 60
                raise ApiError(-1003, message, status=429, retry_after_s=rest_of_minute_s)
            response = await handler(request)
        except ApiError as error:
            response = web.json_response(error.body, status=error.status, headers=error.headers)
        except web.HTTPNotFound:
            response = web.json_response({"code": -1000, "msg": f"No path {request.path}."}, status=404)
        if used is not None:
            response.headers["X-MBX-USED-WEIGHT-1M"] = str(used)
        return response

    def _charge(self, request: web.Request) -> int:
        """Add the request's weight to the weight that its address has used in this minute; returns the
        sum."""
        minute = self._now_us() // 60_000_000
        used_in, used = self._used.get(request.remote, (minute, 0))
        used = (used if used_in == minute else 0) + _weight(request)
        self._used[request.remote] = minute, used
        return used

    # ------------------------------------------------------------------------------------------ Binance

    async def ping(self, request: web.Request) -> web.Response:
        _only(request, ())
        return web.json_response({})

    async def time(self, request: web.Request) -> web.Response:
        _only(request, ())
        return web.json_response({"serverTime": _time(request, self._now_us())})

    async def exchange_info(self, request: web.Request) -> web.Response:
        _only(request, ("symbol", "symbols"))
        limit = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": WEIGHT_LIMIT,
        }
        info = {
            "timezone": "UTC",
            "serverTime": _time(request, self._now_us()),
            "rateLimits": [limit],
            "exchangeFilters": [],
            "symbols": [
                _symbol_info(symbol, self._faults.market_status(symbol))
                for symbol in self._requested_symbols(request)
            ],
            # Not in Binance's response: marks a market that is not real.
            "feed": self._feed,
            "simulated": self._feed == "sim",
        }
        return web.json_response(info)

    async def agg_trades(self, request: web.Request) -> web.Response:
        _only(request, ("symbol", "fromId", "startTime", "endTime", "limit"))
        market = self._market(request)
        limit = _limit(request, 500, _MAX_AGG_TRADES)
        from_id = _integer(request, "fromId")
        start_us, end_us = _bound(request, "startTime", 0), _bound(request, "endTime", 999)
        has_bound = start_us is not None or end_us is not None
        if (from_id is not None and has_bound) or (start_us and end_us and start_us > end_us):
            raise ApiError(-1128, "Combination of optional parameters invalid.")
        now_us = self._now_us()
        faults = self._faults.row_faults(market.symbol)
        rows = visible_rows(market.trades, from_id, (start_us, end_us), limit, now_us, faults)
        return web.json_response(with_row_faults([_agg_trade(request, row) for row in rows], faults))

    async def depth(self, request: web.Request) -> web.Response:
        _only(request, ("symbol", "limit"))
        update_id, bids, asks = self._market(request).depth(_limit(request, 100, _MAX_LEVELS))
        return web.json_response({"lastUpdateId": update_id, "bids": _texts(bids), "asks": _texts(asks)})

    async def tickers(self, request: web.Request) -> web.Response:
        """The newest trade and quote of each symbol, without Binance's daily statistics."""
        _only(request, ("symbol", "symbols", "type"))
        tickers = [_ticker(self._markets[symbol]) for symbol in self._requested_symbols(request)]
        return web.json_response(tickers[0] if "symbol" in request.query else tickers)

    # --------------------------------------------------------------------------------------- not Binance's

    async def sent(self, request: web.Request) -> web.Response:
        """The counts of what was published of each open market (see `Sent`), and where a simulated history
        starts; times in µs."""
        symbols = {symbol: vars(market.sent) for symbol, market in self._markets.items() if market.is_open}
        return web.json_response({"symbols": symbols, "feed": self._feed, "epoch_us": self.epoch_us})

    async def quote(self, request: web.Request) -> web.Response:
        """The quote and the last trade as of `time_ms` of the exchange's clock; default: now."""
        _only(request, ("symbol", "time_ms"))
        market = self._market(request)
        time_ms = _integer(request, "time_ms")
        time_us = self._now_us() if time_ms is None else time_ms * 1_000
        quote, trade = market.quotes.as_of(time_us), market.trades.last_before(time_us)
        answer = {
            "symbol": market.symbol,
            "feed": self._feed,
            "quote": quote and _quote(quote),
            "trade": trade and {"id": trade.last_id, "time_us": trade.time_us, "price": decimal(trade.price)},
        }
        return web.json_response(answer)

    async def mids(self, request: web.Request) -> web.Response:
        """The mids of a symbol, for many spans of time at once. The body is {"symbol": …, "spans_ms":
        [[from, to], …]}; `mids` has for each span those that were the newest at some instant of it, one for
        a span of a single instant. `known_ms` is the time of the newest quote: later mids may still change.
        """
        try:
            body = json.loads(await request.read())
            symbol, spans = body["symbol"], [(int(start), int(end)) for start, end in body["spans_ms"]]
        except (ValueError, TypeError, KeyError):
            raise ApiError(-1100, "The body should have a symbol and spans_ms, pairs of integers.") from None
        if symbol not in self._markets:
            raise ApiError(-1121, "Invalid symbol.")
        quotes = self._markets[symbol].quotes
        answer = {
            "symbol": symbol,
            "feed": self._feed,
            "known_ms": quotes.last and quotes.last.time_us // 1_000,
            "mids": [quotes.mids_within(start * 1_000, end * 1_000) for start, end in spans],
        }
        return web.json_response(answer)

    # --------------------------------------------------------------------------------------------- symbols

    def _market(self, request: web.Request) -> Market:
        symbol = request.query.get("symbol")
        if not symbol:
            raise ApiError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        market = self._markets.get(symbol)
        if market is None:
            raise ApiError(-1121, "Invalid symbol.")
        return market

    def _requested_symbols(self, request: web.Request) -> list[str]:
        if "symbol" in request.query:
            return [self._market(request).symbol]
        if "symbols" not in request.query:
            return list(self._markets)
        try:
            symbols = json.loads(request.query["symbols"])
        except ValueError:
            symbols = None
        if not isinstance(symbols, list):
            raise ApiError(-1100, "Illegal characters found in parameter 'symbols'.")
        if not all(symbol in self._markets for symbol in symbols):
            raise ApiError(-1121, "Invalid symbol.")
        return symbols


def _weight(request: web.Request) -> int:
    if request.path != "/api/v3/depth":
        return _WEIGHTS.get(request.path, 1)
    text = request.query.get("limit", "100")
    limit = int(text) if text.isascii() and text.isdigit() else 100
    return next((weight for levels, weight in _DEPTH_WEIGHTS if limit <= levels), _DEPTH_WEIGHTS[-1][1])


def _only(request: web.Request, known: Collection[str]) -> None:
    sent = len(request.query)
    read = sum(name in known for name in request.query)
    if read < sent:
        message = f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{sent}'."
        raise ApiError(-1104, message)


def _integer(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        legal = "^[0-9]{1,20}$"
        raise ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
    return int(text)


def _limit(request: web.Request, default: int, maximum: int) -> int:
    limit = _integer(request, "limit")
    if limit == 0:
        raise ApiError(-1130, "Data sent for parameter 'limit' is not valid.")
    return default if limit is None else min(limit, maximum)


def _bound(request: web.Request, name: str, rest_of_ms_us: int) -> int | None:
    """A time parameter in µs; of one stated in ms the first (0) or the last (999) microsecond."""
    value = _integer(request, name)
    if value is None or value >= _MICROSECONDS_FROM:
        return value
    return value * 1_000 + rest_of_ms_us


def is_microsecond(unit: str) -> bool:
    """Whether times are wanted in µs, not in ms. Raises `ApiError` for any other unit."""
    if unit.upper() not in ("MILLISECOND", "MICROSECOND"):
        message = "Invalid value for time unit; expected either MICROSECOND or MILLISECOND."
        raise ApiError(-1194, message)
    return unit.upper() == "MICROSECOND"


def _time(request: web.Request, time_us: int) -> int:
    """The time in the unit that the request's header asks for."""
    unit = request.headers.get("X-MBX-TIME-UNIT", "MILLISECOND")
    return time_us if is_microsecond(unit) else time_us // 1_000


def _agg_trade(request: web.Request, row: AggTrade) -> dict[str, Any]:
    return {
        "a": row.id,
        "p": decimal(row.price),
        "q": decimal(row.qty),
        "f": row.first_id,
        "l": row.last_id,
        "T": _time(request, row.time_us),
        "m": row.is_buyer_maker,
        "M": True,
    }


def _ticker(market: Market) -> dict[str, Any]:
    trade, quote = market.trades.newest, market.quotes.last
    return {
        "symbol": market.symbol,
        "lastPrice": decimal(trade.price) if trade else decimal(0),
        "bidPrice": decimal(quote.bid_price) if quote else decimal(0),
        "bidQty": decimal(quote.bid_qty) if quote else decimal(0),
        "askPrice": decimal(quote.ask_price) if quote else decimal(0),
        "askQty": decimal(quote.ask_qty) if quote else decimal(0),
        "lastId": trade.last_id if trade else -1,
    }


def _quote(quote: Quote) -> dict[str, Any]:
    return {
        "time_us": quote.time_us,
        "update_id": quote.update_id,
        "bid_price": decimal(quote.bid_price),
        "bid_qty": decimal(quote.bid_qty),
        "ask_price": decimal(quote.ask_price),
        "ask_qty": decimal(quote.ask_qty),
    }


def _texts(levels: Levels) -> list[list[str]]:
    return [[decimal(price), decimal(qty)] for price, qty in levels]


def _symbol_info(symbol: str, status: str) -> dict[str, Any]:
    base_asset, quote_asset = assets_of(symbol)
    return {
        "symbol": symbol,
        "status": status,
        "baseAsset": base_asset,
        "baseAssetPrecision": 8,
        "quoteAsset": quote_asset,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": "0.01000000",
                "maxPrice": "1000000.00000000",
                "tickSize": "0.01000000",
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": "0.00001000",
                "maxQty": "9000.00000000",
                "stepSize": "0.00001000",
            },
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True},
        ],
    }
