"""Scores of a trained model: on held-out tracks, on new ones, compared."""
