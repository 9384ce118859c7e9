"""`make explain`, on bronze in S3 and a fake API."""

from __future__ import annotations

import io
import json
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from botocore.exceptions import ClientError
from msgspec import to_builtins
from rich.console import Console

from local.commands import explain, receipt_text
from local.commands.deployment import DeploymentNotFound
from local.system import cloud, http_json
from local.system.api import ApiFailed
from local.system.options import OptionsError
from tests.fixtures.aws import BUCKET
from tests.fixtures.kinesis_events import FIRST_SEQUENCE, batch_event
from tests.fixtures.market import START_US, batches, random_ticks
from tests.fixtures.receipts import receipts_of
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.features.vector import FEATURE_NAMES
from tickcast.functions.archive_ticks import archive
from tickcast.serving.records import Timing

API = "http://127.0.0.1:4566/restapis/abc/v1/_user_request_/"
TIMING = dict.fromkeys(Timing.__struct_fields__, 1.0) | {"lateness": 100.0, "write": 50.0}
Receipt = dict[str, Any]


class Served:
    """A fake of the system's API."""

    def __init__(self, receipts: list[Receipt]) -> None:
        self.receipts: dict[str, Receipt] = {receipt["id"]: receipt for receipt in receipts}

    def get(self, url: str, headers: dict[str, str] | None = None, **_: Any) -> http_json.Response:
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        if path.endswith("/health"):
            return http_json.Response(200, {"services": {"predict_stream:BTCUSDT": {"gaps": []}}})
        assert headers == {"x-api-key": "key"}
        if path.endswith("/history"):
            first, last = int(query["from"][0]), int(query["to"][0])
            page = [each for each in self.receipts.values() if first <= each["timestamp"] <= last]
            return http_json.Response(200, {"predictions": [light(each) for each in reversed(page)]})
        name = path.rpartition("/")[2]
        if name not in self.receipts:
            return http_json.Response(404, {"detail": f"no prediction {name} is kept: the newest hour's are"})
        return http_json.Response(200, self.receipts[name] | {"environment": "local", "outcomes": {}})


def light(receipt: Receipt) -> Receipt:
    """A receipt as in a page of history."""
    return {k: v for k, v in receipt.items() if k not in ("features", "calibrator", "timing_ms", "sequence")}


@pytest.fixture
def served(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Served:
    """A system with receipts of a market without a model, archived except for the newest ten seconds."""
    stream = list(batches(*random_ticks(1, 60), [START_US + k * 500_000 for k in range(120)]))
    receipts = [to_builtins(each, str_keys=True) for each in receipts_of(stream, model=None)]
    for receipt in receipts:
        receipt["sequence"] = str(FIRST_SEQUENCE + int(receipt["sequence"]))
    old = [piece for piece in stream if piece.watermark_us < START_US + 50_000_000]
    for start in (0, 90):  # of an event nothing is complete before a later one is there
        archive(batch_event(start, *old[start : start + 90]), s3, BUCKET, SchemaRegistry(s3, BUCKET))
    api = Served(receipts)
    monkeypatch.setattr(http_json, "get", api.get)
    monkeypatch.setattr(cloud, "client_of", lambda endpoint_url, service: s3 if service == "s3" else service)
    monkeypatch.setattr(cloud, "outputs_of", lambda _: {"BucketName": BUCKET, "ApiKeyId": "id"})
    monkeypatch.setattr(cloud, "api_key_of", lambda *_: "key")
    return api


def explained(prediction_id: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, dict[str, Any]]:
    """The exit status, what was shown, and the last line."""
    output = io.StringIO()
    status = explain.show(prediction_id, API, "", Console(file=output, width=160))
    return status, output.getvalue(), json.loads(capsys.readouterr().out.splitlines()[-1])


def an_id(served: Served, second: int) -> str:
    return list(served.receipts)[second]


def test_a_prediction_that_bronze_reproduces(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    id_ = an_id(served, 40)
    receipt = served.receipts[id_]
    receipt |= {"timing_ms": TIMING}
    status, shown, summary = explained(id_.lower(), capsys)
    assert (status, summary["id"], summary["same"], summary["differences"]) == (0, id_, True, [])
    assert summary["features_compared"] == len(FEATURE_NAMES)
    assert summary["bronze_objects"] == 1
    assert "bronze/source=sim/symbol=BTCUSDT/date=2025-07-31/hour=22/shardId-000000000000-" in shown
    for words in (
        f"trade {receipt['last_trade_id']} and book update {receipt['update_id']}",
        f"{len(receipt['open_ids'])} trades and {len(receipt['open_update_ids'])} quotes had arrived",
        "the move from then on is forecast, to 2025-07-31 22:14:02",
        f"last trade {receipt['trade_age_ms']} ms, last quote {receipt['quote_age_ms']} ms",
        "lateness 100 ms",
        "write 50 ms",
        "forecast     none, from",
        "not known yet",
        repr(receipt["features"]["microprice"]),
        "identical to the last bit",
    ):
        assert words in shown
    assert "DIFFERENT" not in shown


def test_a_difference_is_named_and_sets_the_exit_status(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    id_ = an_id(served, 40)
    served.receipts[id_]["features"]["ofi_1s"] += 1e-12
    status, shown, summary = explained(id_, capsys)
    assert (status, summary["same"], summary["differences"]) == (1, False, ["features.ofi_1s"])
    (row,) = (line for line in shown.splitlines() if "ofi_1s" in line)
    assert "DIFFERENT" in row


def test_forecasts_of_a_model_that_is_gone_are_inconclusive(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = batches(*random_ticks(1, 60), [START_US + k * 500_000 for k in range(120)])
    for receipt in (to_builtins(each, str_keys=True) for each in receipts_of(stream)):
        served.receipts[receipt["id"]] |= receipt | {
            "sequence": str(FIRST_SEQUENCE + int(receipt["sequence"]))
        }
    id_ = an_id(served, 40)
    assert served.receipts[id_]["horizons"].keys() == {"1", "2", "5", "10"}
    status, shown, summary = explained(id_, capsys)
    assert (status, summary["same"]) == (3, None)
    assert "model m1" in shown


def test_ticks_not_archived_yet_are_inconclusive(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    status, shown, summary = explained(an_id(served, 55), capsys)
    assert (status, summary["same"], summary["features_compared"]) == (3, None, 0)
    assert "bronze does not hold all its ticks yet" in shown and "try again in a minute" in shown


def test_outcomes_late_ids_and_forecasts_in_words() -> None:
    receipt = to_builtins(receipts_of(batches(*random_ticks(2, 30), []))[-1], str_keys=True)
    outcome = {
        "status": "resolved",
        "outcome_price": 60000.5,
        "move_bp": 0.25,
        "inside": True,
        "right": False,
    }
    lost = {"status": "unresolved", "why": "gap"}
    receipt |= {"late_ids": [7, 9], "outcomes": {"1": outcome, "2": lost}}
    shown = "\n".join(receipt_text.lines(receipt))
    for words in (
        "late         for earlier bars, since the last receipt kept: 2 trades, 0 quotes, 0 of the perpetual",
        "trades [7, 9]",
        "m1 (provisional); challenger in shadow: m2",
        "calibration  10 s: slope",
        f"to {receipt['predicted_price']:,.2f} in 2 s",
        "bp still to come)",
        "1 s: 60,000.50 (+0.250 bp), inside the interval, direction wrong",
        "2 s: unresolved (gap)",
    ):
        assert words in shown


def test_an_unknown_id_is_reported_with_the_reason_of_the_api(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ApiFailed, match="no prediction BTCUSDT-1723161253000 is kept"):
        explained("BTCUSDT-1723161253000", capsys)


def test_a_wrong_key_is_named(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_json, "get", lambda *_, **__: http_json.Response(403, {"message": "Forbidden"}))
    with pytest.raises(ApiFailed, match="refuses the key in KEY"):
        explain.show(
            an_id(served, 3), "https://x.execute-api.ap-northeast-1.amazonaws.com/v1", "mine", Console()
        )


def test_without_credentials_of_the_account_it_says_so(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://x.execute-api.ap-northeast-1.amazonaws.com/v1/"
    requested = []

    def refused(cloudformation: Any, stack: str) -> Any:
        requested.append((cloudformation.meta.region_name, stack))
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DescribeStacks")

    monkeypatch.setattr(cloud, "outputs_of", refused)
    with pytest.raises(DeploymentNotFound, match="these credentials lack that right"):
        explain.show(an_id(served, 3), url, "key", Console())
    assert requested == [("ap-northeast-1", "tickcast-local-app")]


@pytest.mark.parametrize("given", ["币安人生USDT-1723161253000", " 币安人生usdt-1723161253000\n"])
def test_a_symbol_of_any_script_is_percent_encoded(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    requested = []

    def get(url: str, headers: dict[str, str]) -> http_json.Response:
        requested.append(url)
        return http_json.Response(404, {"detail": "no such prediction"})

    monkeypatch.setattr(http_json, "get", get)
    with pytest.raises(ApiFailed, match="no such prediction"):
        explain.show(given, "https://api.example.com/v1/", "key", Console(file=io.StringIO()))
    encoded = quote("币安人生USDT")
    assert requested == [f"https://api.example.com/v1/predictions/{encoded}/{encoded}-1723161253000"]


@pytest.mark.parametrize(
    "given",
    ["", "BTCUSDT", "BTC-USDT-1723161253000", "BTCUSDT-172316125300", "-1723161253000", "A-1723161253000x"],
)
def test_another_text_than_an_id_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(OptionsError, match="the `id` of a prediction, like BTCUSDT-1723161253000"):
        explain.show(given, "https://api.example.com/v1/", "key", Console(file=io.StringIO()))
