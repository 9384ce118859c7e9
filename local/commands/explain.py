"""`make explain ID=…`: one prediction told in words, and made again from bronze to the last bit.

The receipt comes from the API; the ticks and the models from the S3 of the same system: of the one that runs
here, or of the AWS account whose credentials are set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import boto3
import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.table import Table

from local.commands import gaps
from local.commands.options import OptionsError
from local.system import cloud, http_json
from tickcast.adapters import json_text
from tickcast.adapters.redaction import describe
from tickcast.functions.audit_predictions import LATE_UNTIL_MS, Audit, Auditor, missing_ids
from tickcast.market import symbols
from tickcast.market.gaps import GapRecord
from tickcast.serving.records import LateTicks, Prediction
from tickcast.serving.reproduce import LOOK_BACK_US, ComparedValue, Reproduction

DIFFERENT, NOT_TOLD = 1, 3
_ID = re.compile(r"([^\W_]+)-([0-9]{13})")
_PAGE = 1000
_KEYS_SHOWN = 10
_EMULATED = "/_user_request_"  # in the address of an API that the emulator serves

Receipt = dict[str, Any]


class NotExplained(RuntimeError):
    """A prediction that cannot be had, or the place where its ticks are; the message says what to do."""


@dataclass(frozen=True)
class Api:
    url: str
    key: str

    def get(self, path: str, **query: int) -> Any:
        """The answer's body. Raises `NotExplained`."""
        address = f"{self.url.rstrip('/')}/{quote(path)}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = http_json.get(address, {"x-api-key": self.key})
        except (OSError, ValueError) as error:
            raise gaps.NotRunning(f"{address} does not answer: {describe(error, self.key)}") from None
        if answer.status == 403:
            raise NotExplained(
                f"{self.url} refuses the key in KEY" if self.key else f"{self.url} wants a key: KEY=…"
            )
        if answer.status != 200:
            body = answer.body if isinstance(answer.body, dict) else {}
            told = body.get("detail") or body.get("message") or json_text.text(answer.body)[:200]
            raise NotExplained(f"{told} ({address} answers {answer.status})")
        return answer.body


def show(prediction_id: str, url: str, key: str, console: Console) -> int:
    """Explain a prediction of the system at `url`, or of one that runs here. The exit status: 0 when it could
    be had again, `DIFFERENT`, or `NOT_TOLD`. Raises `OptionsError`, `gaps.NotRunning`, `NotExplained`."""
    matched = _ID.fullmatch(symbols.upper(prediction_id.strip()))
    if not matched:
        raise OptionsError(
            f"ID is {prediction_id!r}; it should be the `id` of an answer, like BTCUSDT-1723161253000"
        )
    symbol, timestamp_ms = matched[1], int(matched[2])
    api, receipt = _find(symbol, f"{symbol}-{timestamp_ms}", [url] if url else gaps.running().values(), key)
    s3, bucket = _lake(api.url, receipt)
    page = api.get(
        f"predictions/{symbol}/history",
        **{"from": timestamp_ms - LOOK_BACK_US // 1000, "to": timestamp_ms + LATE_UNTIL_MS, "limit": _PAGE},
    )
    stream = gaps.health(api.url).get(f"predict_stream:{symbol}") or {}
    missing = missing_ids(msgspec.convert(stream.get("gaps", []), list[GapRecord]))
    late = msgspec.convert(page["predictions"], list[LateTicks])
    auditor = Auditor(s3, bucket)
    try:
        audit = auditor(msgspec.convert(receipt, Prediction), late, missing, auditor.reader())
    except (BotoCoreError, ClientError) as error:
        raise NotExplained(f"the bucket {bucket} cannot be read: {describe(error)}") from None
    console.print(*in_words(receipt), sep="\n", highlight=False, soft_wrap=True)
    for table in tables(audit.reproduction):
        console.print(table)
    console.print(*conclusion(audit), sep="\n", highlight=False, soft_wrap=True)
    print(json_text.text(summary(audit)), flush=True)
    return {True: 0, False: DIFFERENT, None: NOT_TOLD}[audit.reproduction.same]


def _find(symbol: str, prediction_id: str, urls: Any, key: str) -> tuple[Api, Receipt]:
    """The receipt, and the API that knows it: of several systems the first that does."""
    reasons = []
    for url in urls:
        api = Api(url, key or _key(url))
        try:
            return api, api.get(f"predictions/{symbol}/{prediction_id}")
        except NotExplained as reason:
            reasons.append(str(reason))
    raise NotExplained("; ".join(reasons))


def _key(url: str) -> str:
    """The key of the API at `url`, if it is one that the emulator serves; others are given."""
    if _EMULATED not in url:
        return ""
    endpoint_url = _origin(url)
    outputs = cloud.outputs_of(cloud.client_of(endpoint_url, "cloudformation"))
    return cloud.api_key_of(cloud.client_of(endpoint_url, "apigateway"), outputs["ApiKeyId"])


def _lake(url: str, receipt: Receipt) -> tuple[Any, str]:
    """An S3 client and the bucket of the system whose API is at `url`. Raises `NotExplained`."""
    if _EMULATED in url:
        outputs = cloud.outputs_of(cloud.client_of(_origin(url), "cloudformation"))
        return cloud.client_of(_origin(url), "s3"), outputs["BucketName"]
    host = urlsplit(url).hostname or ""
    region = host.split(".")[2] if ".execute-api." in host else None
    stack = f"tickcast-{receipt['environment']}-app"
    try:
        outputs = cloud.outputs_of(boto3.client("cloudformation", region_name=region), stack)
        return boto3.client("s3", region_name=region), outputs["BucketName"]
    except (BotoCoreError, ClientError) as error:
        raise NotExplained(
            f"where {stack} keeps its ticks cannot be learnt: {describe(error)}; "
            "set credentials of its account"
        ) from None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def in_words(receipt: Receipt) -> Iterator[str]:
    """The receipt, told line by line."""
    yield f"[bold]{receipt['id']}[/bold]: {receipt['symbol']} as of {_time(receipt['timestamp'])}"
    late = len(receipt["late_ids"]), len(receipt["late_update_ids"])
    yield (
        f"  made from    everything up to trade {receipt['last_trade_id']} and book update "
        f"{receipt['update_id']}; since the one before, {late[0]} trades and {late[1]} quotes came too late"
    )
    if any(late):
        yield f"  came late    trades {receipt['late_ids']}, book updates {receipt['late_update_ids']}"
    yield (
        f"  ages         last trade {_ms(receipt.get('trade_age_ms'))}, last quote "
        f"{_ms(receipt.get('quote_age_ms'))}; history since {_time(receipt['history_from_us'] / 1000)}"
    )
    yield f"  by           {_by(receipt)}"
    for horizon, state in receipt["calibrator"].items():
        yield (
            f"  calibrated   {horizon} s: slope {state['direction_slope']:.4g}, "
            f"width {state['interval_width']:.4g} σ√h, after {state['outcomes']} outcomes"
        )
    spent = ", ".join(f"{name} {_ms(ms)}" for name, ms in (receipt.get("timing_ms") or {}).items())
    yield f"  latency      {_ms(receipt.get('latency_ms'))}: {spent or 'not told'}"
    yield f"  said         {_said(receipt)}"
    for horizon, outcome in receipt.get("outcomes", {}).items():
        yield f"  came true?   {horizon} s: {_outcome(outcome)}"
    if not receipt.get("outcomes"):
        yield "  came true?   not known yet"


def tables(reproduction: Reproduction) -> list[Table]:
    """What was compared: the features, and what follows from them."""
    parts = {
        "features": [each for each in reproduction.compared if each.name.startswith("features")],
        "prediction": [each for each in reproduction.compared if not each.name.startswith("features")],
    }
    return [_table(title, compared) for title, compared in parts.items() if compared]


def conclusion(audit: Audit) -> Iterator[str]:
    """What it comes to."""
    reproduction = audit.reproduction
    if audit.objects:
        yield f"recomputed from {len(audit.objects)} objects:"
        shown = [part.key for part in audit.objects]
        if len(shown) > _KEYS_SHOWN:
            shown[_KEYS_SHOWN - 1 : -1] = ["…"]
        yield from (f"  {key}" for key in shown)
    for reason in reproduction.unproven:
        yield f"[yellow]not told:[/yellow] {reason}"
    for caveat in reproduction.caveats if reproduction.differences else ():
        yield f"[yellow]no proof of a fault:[/yellow] {caveat}"
    count, differences = len(reproduction.compared), len(reproduction.differences)
    if reproduction.same:
        yield f"[bold green]the same to the last bit[/bold green]: {count} values"
    elif reproduction.same is False:
        yield f"[bold red]DIFFERS[/bold red]: {differences} of {count} values"
    elif not reproduction.compared:
        yield "[bold yellow]nothing could be compared[/bold yellow]: try again in a minute"
    else:
        yield f"[bold yellow]not proven[/bold yellow]: {count - differences} of {count} values are the same"


def summary(audit: Audit) -> dict[str, Any]:
    """The last line."""
    reproduction = audit.reproduction
    features = [each for each in reproduction.compared if each.name.startswith("features.")]
    return {
        "id": reproduction.id,
        "same": reproduction.same,
        "features_compared": len(features),
        "values_compared": len(reproduction.compared),
        "differences": [each.name for each in reproduction.differences],
        "doubts": list(reproduction.caveats),
        "unproven": list(reproduction.unproven),
        "bronze_objects": len(audit.objects),
    }


def _table(title: str, compared: list[ComparedValue]) -> Table:
    table = Table(title=title)
    for name in ("value", "in the receipt", "recomputed", ""):
        table.add_column(name, justify="right" if "re" in name else "left")
    for each in compared:
        verdict = "[green]same[/green]" if each.is_same else "[bold red]DIFFERS[/bold red]"
        table.add_row(
            each.name.removeprefix("features."), _value(each.recorded), _value(each.recomputed), verdict
        )
    return table


def _by(receipt: Receipt) -> str:
    if not receipt["model_id"]:
        return "no model"
    provisional = " (provisional)" if receipt.get("provisional") else ""
    shadow = receipt["challenger"]
    beside = f"; in its shadow {shadow['model_id']}" if shadow else ""
    return f"model {receipt['model_id']}{provisional}{beside}"


def _said(receipt: Receipt) -> str:
    basis = f"from {receipt['basis_price']:,.2f}"
    if receipt["source"] == "fallback":
        outside = f" ({', '.join(receipt['outside'])})" if receipt.get("outside") else ""
        return f"{basis}: no prediction, because {receipt['reason']}{outside}"
    return (
        f"{basis}, in {receipt['horizon_s']} s {receipt['predicted_price']:,.2f} "
        f"({receipt['expected_move_bp']:+.3f} bp), 80 % within {receipt['lower']:,.2f} and "
        f"{receipt['upper']:,.2f}, direction right with {receipt['confidence']:.0%}"
    )


def _outcome(outcome: Receipt) -> str:
    if outcome["status"] != "resolved":
        return f"never known ({outcome['why']})"
    inside = {True: "inside the interval", False: "outside the interval", None: "no interval"}
    right = {True: "direction right", False: "direction wrong", None: "no direction to judge"}
    return (
        f"{outcome['outcome_price']:,.2f} ({outcome['move_bp']:+.3f} bp), "
        f"{inside[outcome['inside']]}, {right[outcome['right']]}"
    )


def _value(value: Any) -> str:
    """As exactly as it is stored."""
    return repr(value) if isinstance(value, float) else str(value)


def _time(time_ms: float) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def _ms(milliseconds: float | None) -> str:
    return "unknown" if milliseconds is None else f"{milliseconds:,.0f} ms"
