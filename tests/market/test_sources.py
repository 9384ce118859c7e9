import pytest

from tickcast.market.sources import EXCHANGE_STREAMS, REAL_ORIGINS, STREAMED, Origin, Source


def test_sources_and_their_origins() -> None:
    assert {source.value: source.origin.label for source in Source} == {
        "sbe": "stream",
        "json": "stream",
        "rest": "rest",
        "sim": "sim",
        "replay": "replay",
        "usdm": "stream",
        "sim_usdm": "sim",
        "replay_usdm": "replay",
    }
    assert set(STREAMED) == {Source.SBE, Source.JSON, Source.SIM, Source.REPLAY} > set(EXCHANGE_STREAMS)


def test_reference_quotes_have_a_source_of_their_own_of_the_same_origin() -> None:
    for source in STREAMED:
        assert not source.is_reference
        assert source.reference.is_reference
        assert source.reference.origin is source.origin
    with pytest.raises(ValueError, match="batches of source rest carry no reference quotes"):
        _ = Source.REST.reference


def test_the_order_of_origins_is_that_of_preference_and_stored() -> None:
    assert [origin.label for origin in sorted(Origin)] == ["stream", "replay", "sim", "rest"]
    assert {source.origin for source in EXCHANGE_STREAMS} < set(REAL_ORIGINS)
