"""The supervisor: pure decisions by table and by hypothesis, the rest with real processes."""
