"""What several programs of this folder share."""
