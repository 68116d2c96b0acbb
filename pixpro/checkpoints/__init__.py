"""Files of weights: our own checkpoints, other projects' layouts, safe loading, export."""
