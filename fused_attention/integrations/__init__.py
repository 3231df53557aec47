"""Other people's libraries: their weights, signatures and models."""
