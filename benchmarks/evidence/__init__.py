"""What was learned, measured: the parts of benchmarks/learning.py."""
