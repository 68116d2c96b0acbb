"""Scores of frozen backbones: what evaluate.py does."""
