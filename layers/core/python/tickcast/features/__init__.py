"""From ticks to numbers: short bars of event time, the ring that holds the newest, the feature vector."""
