"""The drills: a running system is hurt in one way after the other, and every trade is accounted for.

faults    what is done to it: one function a fault, one row a drill
stage     the hands of a drill: the exchange's misbehaviours, ingest tasks, a network that can be cut
account   what became of every trade id the exchange published meanwhile
runner    fault, recovery, account; the table and the JSON line
"""
