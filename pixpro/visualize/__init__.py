"""Pictures of pairs, of dense features, and of metrics."""
