"""PostgreSQL: the connection, binary COPY, and the stores of history, scores and training rows."""
