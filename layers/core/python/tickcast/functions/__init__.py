"""The use cases, one module each, named as the Lambda function that calls it."""
