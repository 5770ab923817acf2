"""Generations: what is saved, how it lies on disk, how it is proved, committed, found and restored.

Knows HDF5 and torch; knows no signal, no scheduler and no training loop.
"""
