"""What a model is worth: skill, backtest, the gate, scores of what was served, drift."""
