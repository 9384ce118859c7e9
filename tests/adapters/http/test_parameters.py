"""Instants in a query: RFC 3339 with its corner cases, and milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from tickcast.adapters.http.parameters import MAX_MS, HistoryQuery, read_query
from tickcast.adapters.http.responses import ApiError

NEW_YEAR_2017_MS = 1_483_228_800_000  # the second after the last leap second there was


def instant_ms(text: str) -> int:
    found = read_query({"queryStringParameters": {"to": text}}, HistoryQuery).to
    assert found is not UNSET
    return found


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2017-01-01T00:00:00Z", NEW_YEAR_2017_MS),
        ("2016-12-31T23:59:60Z", NEW_YEAR_2017_MS),
        ("2016-12-31T23:59:60.999Z", NEW_YEAR_2017_MS),
        ("2017-01-01T08:59:60+09:00", NEW_YEAR_2017_MS),
        ("2016-12-31T15:59:60-08:00", NEW_YEAR_2017_MS),
        ("2017-01-01T05:29:60+05:30", NEW_YEAR_2017_MS),
        ("2026-06-30t23:59:60z", 1_782_864_000_000),
        ("2017-01-01t00:00:00z", NEW_YEAR_2017_MS),
        ("2017-01-01T00:00:00-00:00", NEW_YEAR_2017_MS),
        ("2017-01-01T00:00:00.5Z", NEW_YEAR_2017_MS + 500),
        ("2017-01-01T00:00:00.04Z", NEW_YEAR_2017_MS + 40),
        ("2017-01-01T00:00:00.0019999999999Z", NEW_YEAR_2017_MS + 1),
        ("2016-12-31T23:59:59.9999999999Z", NEW_YEAR_2017_MS - 1),
        ("2017-01-01T23:59:00+23:59", NEW_YEAR_2017_MS),
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59Z", 0),
        ("0001-01-01T00:00:00+23:59", 0),
        ("0000-02-29T00:00:00Z", 0),
        ("9999-12-31T23:59:59-23:59", MAX_MS),
        ("2286-11-20T17:46:40Z", MAX_MS),
        ("0", 0),
        ("9999999999999", MAX_MS),
    ],
)
def test_instants(text: str, ms: int) -> None:
    assert instant_ms(text) == ms
    assert instant_ms(str(ms)) == ms  # as `next` of a page gives it back


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2017-01-01",
        "2017-01-01T00:00Z",
        "2017-01-01T00:00:00",
        "2017-01-01 00:00:00Z",
        "2017-01-01T00:00:00.Z",
        "2017-01-01T00:00:00,5Z",
        "2017-01-01T24:00:00Z",
        "2017-01-01T00:60:00Z",
        "2017-01-01T00:00:61Z",
        "2017-01-01T12:00:60Z",
        "2016-12-31T23:59:60+09:00",
        "2017-01-01T00:00:00+24:00",
        "2017-01-01T00:00:00+00:60",
        "2017-01-01T00:00:00+0000",
        "2017-01-01T00:00:00z\n",
        "2017-02-29T00:00:00Z",
        "0000-02-30T00:00:00Z",
        "2017-00-01T00:00:00Z",
        "２０１７-01-01T00:00:00Z",
        "2017-W01-1T00:00:00Z",
        "20170101T000000Z",
        "+1",
        "-1",
        "1.5",
        "1e3",
        "NaN",
        "10000000000000",
        "2017-01-01T00:00:00." + "0" * 5000 + "Z",
    ],
)
def test_an_invalid_instant_is_a_400(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        instant_ms(text)
    assert (refused.value.status, refused.value.parameter) == (400, "to")
    assert len(refused.value.detail) < 200


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2280, 1, 1)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timedelta(minutes=minutes)),
)
def test_an_instant_is_the_same_in_every_zone(utc: datetime, offset: timedelta) -> None:
    sign, minutes = ("-" if offset < timedelta() else "+"), abs(offset) // timedelta(minutes=1)
    text = f"{(utc + offset).isoformat(timespec='microseconds')}{sign}{minutes // 60:02}:{minutes % 60:02}"
    since = utc.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    assert instant_ms(text) == since // timedelta(milliseconds=1)
