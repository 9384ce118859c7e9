"""Gateways to the world: Redis, PostgreSQL, S3, the model registry, HTTP, Kinesis, the exchange's REST."""
