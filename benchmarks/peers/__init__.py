"""hpcresume and its peers through the same preemptions, lost nodes and damaged checkpoints on a real Slurm.

`python -m benchmarks.peers` measures and writes docs/comparison.json and the tables of docs/COMPARISON.md.
The programs (by_hand.py, with_lightning.py, with_submitit.py, with_session.py) are what each contender's own
documentation shows, around the one training of training.py.
"""
