"""The watermark follows the least claim of the connections that are alive, and never moves back."""

from tickcast.market.watermark import CLAIM_LIFE_US, Watermark
from tickcast.market.wire import NO_WATERMARK, QUIET_UNKNOWN, WATERMARK_WITHDRAWN

S = 1_000_000


def test_it_is_the_least_claim() -> None:
    watermark = Watermark()
    watermark.update("a", 10 * S, QUIET_UNKNOWN)
    watermark.update("b", 9 * S, QUIET_UNKNOWN)
    assert watermark.reached_us == 10 * S  # never back
    watermark.update("a", 11 * S, QUIET_UNKNOWN)
    assert watermark.reached_us == 10 * S  # b is alive and has only 9 s
    watermark.update("b", 10 * S + 1, QUIET_UNKNOWN)
    assert watermark.reached_us == 10 * S + 1


def test_a_withdrawn_claim_holds_up_nothing() -> None:
    watermark = Watermark()
    watermark.update("a", 10 * S, QUIET_UNKNOWN)
    watermark.update("b", 10 * S, QUIET_UNKNOWN)
    watermark.update("b", WATERMARK_WITHDRAWN, QUIET_UNKNOWN)
    watermark.update("a", 11 * S, QUIET_UNKNOWN)
    assert (watermark.reached_us, watermark.claims_us) == (11 * S, {"a": 11 * S})


def test_a_connection_that_ended_without_withdrawing_holds_up_for_its_claim_s_life() -> None:
    watermark = Watermark()
    watermark.update("a", 10 * S, QUIET_UNKNOWN)
    watermark.update("b", 10 * S, QUIET_UNKNOWN)
    watermark.update("a", 10 * S + CLAIM_LIFE_US, QUIET_UNKNOWN)
    assert watermark.reached_us == 10 * S
    watermark.update("a", 10 * S + CLAIM_LIFE_US + 1, QUIET_UNKNOWN)
    assert watermark.reached_us == 10 * S + CLAIM_LIFE_US + 1


def test_no_claim_changes_nothing_but_the_evidence_of_quiet() -> None:
    watermark = Watermark()
    watermark.update("a", NO_WATERMARK, 7)
    watermark.update("a", NO_WATERMARK, QUIET_UNKNOWN)
    assert watermark == Watermark(quiet_us=7)
