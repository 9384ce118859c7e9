"""Evaluation: skill, baselines, the backtest, the gate, scores of served predictions, drift."""
