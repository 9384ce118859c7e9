"""The model registry in S3: models, their cards, the pointer to the active one, and its watcher."""
