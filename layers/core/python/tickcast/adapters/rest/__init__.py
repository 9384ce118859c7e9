"""The exchange's REST API."""
