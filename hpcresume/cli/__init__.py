"""The command line: one module a verb, options and rendering, no logic.

Heavy modules are imported inside the functions that need them.
"""
