"""The local exchange: Binance's SBE stream and REST API over a simulated or a replayed market."""
