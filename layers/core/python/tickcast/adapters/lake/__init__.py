"""S3: bronze, and the quarantine of what was refused."""
