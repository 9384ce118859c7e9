from tickcast.market.sources import EXCHANGE_STREAMS, REAL_ORIGINS, STREAMED, Origin, Source


def test_sources_and_their_origins() -> None:
    assert {source.value: source.origin.label for source in Source} == {
        "sbe": "stream",
        "json": "stream",
        "rest": "rest",
        "sim": "sim",
        "replay": "replay",
    }
    assert set(STREAMED) == set(Source) - {Source.REST} > set(EXCHANGE_STREAMS)


def test_the_order_of_origins_is_that_of_preference_and_stored() -> None:
    assert [origin.label for origin in sorted(Origin)] == ["stream", "replay", "sim", "rest"]
    assert {source.origin for source in EXCHANGE_STREAMS} < set(REAL_ORIGINS)
