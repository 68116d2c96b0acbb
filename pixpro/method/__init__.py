"""The paper and nothing else: geometry, encoder, heads, propagation, losses, momentum, the two methods."""
