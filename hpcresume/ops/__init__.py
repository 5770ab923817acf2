"""What composes the layers below for one purpose a user has, for instance the demo.

Owns no mechanism of its own that a lower layer needs.
"""
