"""Numbers from labels and scores; NumPy only, no model."""
