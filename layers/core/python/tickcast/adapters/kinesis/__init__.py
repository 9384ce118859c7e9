"""Kinesis: the records of an event, and the registry of the schemas of their batches."""
