"""The watermark follows the least claim of the connections that are alive, and never moves back."""

import pytest

from tickcast.market.watermark import CLAIM_LIFE_US, Watermark
from tickcast.market.wire import NO_WATERMARK, QUIET_UNKNOWN, WATERMARK_WITHDRAWN

S = 1_000_000


def after(*claims: tuple[str, int]) -> Watermark:
    watermark = Watermark()
    for connection, claim_us in claims:
        watermark.update(connection, claim_us, QUIET_UNKNOWN)
    return watermark


def test_it_is_the_least_claim() -> None:
    claims = [("a", 10 * S), ("b", 9 * S), ("a", 11 * S), ("b", 10 * S + 1)]
    reached_us = [after(*claims[:n]).reached_us for n in (1, 2, 3, 4)]
    assert reached_us == [10 * S, 10 * S, 10 * S, 10 * S + 1]  # never back, and no further than b


def test_a_withdrawn_claim_delays_nothing() -> None:
    watermark = after(("a", 10 * S), ("b", 10 * S), ("b", WATERMARK_WITHDRAWN), ("a", 11 * S))
    assert (watermark.reached_us, watermark.claims_us) == (11 * S, {"a": 11 * S})


def test_the_newest_claim_stays_when_its_connection_ends() -> None:
    claims = [("a", 10 * S), ("b", 12 * S), ("b", WATERMARK_WITHDRAWN), ("a", 11 * S), ("a", 13 * S)]
    assert [after(*claims[:n]).newest_us for n in range(6)] == [-1, 10 * S, *[12 * S] * 3, 13 * S]
    assert after(*claims[:4]).reached_us == 11 * S


@pytest.mark.parametrize("late_us", [0, 1])
def test_a_claim_that_was_not_withdrawn_expires(late_us: int) -> None:
    newest_us = 10 * S + CLAIM_LIFE_US + late_us
    watermark = after(("a", 10 * S), ("b", 10 * S), ("a", newest_us))
    assert watermark.reached_us == (newest_us if late_us else 10 * S)


def test_no_claim_changes_nothing_but_the_evidence_of_quiet() -> None:
    watermark = Watermark()
    watermark.update("a", NO_WATERMARK, 7)
    watermark.update("a", NO_WATERMARK, QUIET_UNKNOWN)
    assert watermark == Watermark(quiet_us=7)
