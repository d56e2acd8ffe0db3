"""The networks: the paper's model, its parts, the baselines."""
