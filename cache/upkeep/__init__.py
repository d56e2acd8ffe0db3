"""Maintain a store: verify, repair, compact, convert."""
