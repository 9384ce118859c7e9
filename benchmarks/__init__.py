"""Measurements side by side: ours against the usual choices, in one run, as ratios."""
