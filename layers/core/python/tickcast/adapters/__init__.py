"""Where the core meets the world: Redis, S3, Kinesis, ONNX, and the handlers' one call each."""
