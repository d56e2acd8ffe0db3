"""The networks: the paper's model, its components, the baselines."""
