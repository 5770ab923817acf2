"""Everything that is spoken with Slurm: its commands, its environment variables, its output formats.

Knows nothing of torch, HDF5 or generations.
"""
