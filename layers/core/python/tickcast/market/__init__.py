"""The market as the exchange tells it: frames, ticks, sessions, batches on the wire, gaps in the data."""
