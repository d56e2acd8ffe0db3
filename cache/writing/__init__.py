"""Publish what a store gains, so that nothing half-written is ever seen."""
