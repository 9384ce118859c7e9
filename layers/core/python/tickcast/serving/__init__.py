"""What is served: predictions and their outcomes, the state of a symbol, receipts reproduced."""
