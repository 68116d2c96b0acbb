"""Checkpoint -> weight file for detectron2, verified."""
