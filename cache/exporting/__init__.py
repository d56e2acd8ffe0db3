"""Export a store into files that other tools read."""
