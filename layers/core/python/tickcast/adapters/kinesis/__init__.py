"""Kinesis: the records of an event, and the schemas of the batches in them."""
