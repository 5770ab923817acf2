"""Shipped for users' own tests: a fault-injecting filesystem and contract suites.

Nothing below the command line may import it.
"""
