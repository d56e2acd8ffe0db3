"""Publish new content of a store, so that no reader ever sees a half-written object."""
