"""Pages and pictures of runs, stores and ablations."""
