"""What each of Slurm's commands does on the emulated cluster: one module a command."""
