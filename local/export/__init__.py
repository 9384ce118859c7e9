"""Data out: a deployment's ticks, bars, feature rows, receipts and outcomes as Parquet files."""
