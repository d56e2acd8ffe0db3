"""Labels, splits and batches from a feature store."""
