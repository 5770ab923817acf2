"""The supervisor in the batch step: starts the ranks, forwards warnings, names the cause, requeues.

Never imports the training's side; it reads the files that a session leaves.
"""
