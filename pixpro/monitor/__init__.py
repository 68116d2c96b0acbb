"""Is the network learning: health numbers, verdicts, dense matching, metrics, the console."""
