"""Collections that other tools keep: their files become tracks."""
