"""Pure decisions: cadence, deadline, requeue, retention, the order of samples.

Frozen values in, frozen values out. Knows no clock, file, signal, rank or process.
"""
