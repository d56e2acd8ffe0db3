"""From the labelled tracks of a store to batches of tensors."""
