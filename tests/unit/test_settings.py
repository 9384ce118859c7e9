import pytest

from ingest_ecs.settings import IngestSettings
from tickcast.adapters.settings import Settings, SettingsError, symbols_in

FUNCTION = {"ENVIRONMENT": "local", "BUCKET": "bucket", "SYMBOLS": "btcusdt, ETHUSDT"}
INGEST = {"STREAM_NAME": "ticks", "SYMBOLS": "BTCUSDT", "BINANCE_API_KEY": "secret-key"}


def test_defaults_are_the_contract_s() -> None:
    settings = Settings.from_environment(FUNCTION)
    assert settings.symbols == ("BTCUSDT", "ETHUSDT")
    assert (settings.lateness_us, settings.stale_after_s, settings.features_ttl_s) == (100_000, 5, 60)
    assert (settings.fee_bp, settings.min_confidence) == (10, 0.55)


@pytest.mark.parametrize("name", FUNCTION)
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        Settings.from_environment({k: v for k, v in FUNCTION.items() if k != name})


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(SettingsError, match="LATENESS_MS is 'soon', it should be a number"):
        Settings.from_environment(FUNCTION | {"LATENESS_MS": "soon"})


@pytest.mark.parametrize("text", ["0.4", "1", "55"])
def test_a_confidence_that_is_none_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match="MIN_CONFIDENCE is .*, it should be from 0.5 up to below 1"):
        Settings.from_environment(FUNCTION | {"MIN_CONFIDENCE": text})


@pytest.mark.parametrize("text", ["", " , ", "BTC-USDT", "BTC/USDT"])
def test_symbols_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match="it should be a list like BTCUSDT,ETHUSDT"):
        symbols_in(text)


def test_ingest_says_which_key_is_missing() -> None:
    with pytest.raises(
        SettingsError, match="BINANCE_API_KEY is not set: the SBE stream wants the key of an Ed25519"
    ):
        IngestSettings.from_environment({k: v for k, v in INGEST.items() if k != "BINANCE_API_KEY"})


def test_the_key_shows_in_no_dump() -> None:
    settings = IngestSettings.from_environment(INGEST)
    assert settings.api_key == "secret-key"
    assert "secret-key" not in repr(settings)
