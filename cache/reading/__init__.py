"""Open a store of either form and read it."""
