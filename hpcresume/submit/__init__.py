"""From a checked job to a job in Slurm's queue: scripts, preflight, sbatch, submitit, and a first job to begin with.

Imports neither torch nor submitit before a function is submitted.
"""
