"""Tests of the ranks, their backends, votes and the watchdog."""
