"""What hpcresume needs of a place, looked at piece by piece: Slurm, time, MPI, the filesystem, the nodes."""
