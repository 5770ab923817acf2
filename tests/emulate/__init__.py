"""The emulated scheduler: its rules by table, its deeds with real processes under real mpiexec."""
