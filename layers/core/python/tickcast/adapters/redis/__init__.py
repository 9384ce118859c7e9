"""Redis: the connection and the hot store."""
