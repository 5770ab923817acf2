"""From YAML to a checked job specification. Knows neither Slurm's commands nor checkpoints."""
