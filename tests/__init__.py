"""The tests of hpcresume."""
