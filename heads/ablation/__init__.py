"""Ablations: the runs behind the paper's tables and figure."""
