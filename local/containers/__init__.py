"""The whole system in containers: what `docker-compose.yml` runs besides the servers and the ingest task."""

from pathlib import Path

SHARED = Path("/run/tickcast")  # a volume: from the deployment to the ingest task and the exporter
INGEST_VARIABLES = "ingest.env"
SYSTEM = "system.json"
