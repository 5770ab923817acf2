"""Other people's frameworks: submitit and torchrun, each in a module of its own."""
