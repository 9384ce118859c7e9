"""The market as the exchange sends it: frames, ticks, sessions, batches on the wire, gaps in the data."""
