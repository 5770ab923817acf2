"""Ranks: one protocol, three backends, votes and the watchdog. Knows no file format and no Slurm command."""
