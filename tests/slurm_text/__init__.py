"""What Slurm says, in its environment and its commands' output, hostile text included."""
