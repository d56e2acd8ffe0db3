"""Metrics from labels and scores, in NumPy."""
