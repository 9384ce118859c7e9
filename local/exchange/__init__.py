"""The local exchange: Binance's SBE and JSON streams and REST API over a simulated or a replayed market."""
