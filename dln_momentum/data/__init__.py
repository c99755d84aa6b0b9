"""Data: the loaders that return a `Problem`."""
