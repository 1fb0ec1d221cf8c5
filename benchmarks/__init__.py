"""Measurements against peers and against this machine; never part of the tests."""
