"""Semantic segmentation on torch alone: what segment.py does."""
