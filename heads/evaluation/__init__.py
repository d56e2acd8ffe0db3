"""Evaluation, comparison and prediction with trained models."""
