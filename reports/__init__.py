"""HTML reports and plots of runs, feature stores and ablations."""
