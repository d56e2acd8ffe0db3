"""From lyrics and genre names to the states of a frozen BERT."""
