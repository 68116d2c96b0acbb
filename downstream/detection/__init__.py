"""A detector on torchvision alone: what detect.py does."""
