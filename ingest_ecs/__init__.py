"""The ingest task: holds the exchange's stream open and puts ticks on Kinesis. The socket loop only."""
