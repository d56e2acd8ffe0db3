"""From a source to a store: plan, parts, workers, commits."""
