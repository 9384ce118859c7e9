"""The drills: faults are injected into a running system one after the other, and every trade is reconciled.

scenarios       one function a scenario, one row a drill
harness         a scenario's controls: the exchange's faults, ingest tasks, a network that can be cut
reconciliation  every trade id that the exchange published: in bronze, in the gap ledger, or lost
runner          scenario, recovery, reconciliation; the table and the report
"""
