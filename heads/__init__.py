"""The parts that learn: audio CNN, cross-modal fusion, genre graph, projections; trained from cached features only."""
