"""Many runs: the paper's tables and figure."""
