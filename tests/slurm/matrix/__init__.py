"""The conformance suite: every way to start a training, met by every event, on a real cluster."""
