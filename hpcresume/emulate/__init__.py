"""The attempts of one job on this machine, on a timetable, as Slurm would treat it.

Starts commands and sends signals; knows nothing of what they compute or save.
"""
