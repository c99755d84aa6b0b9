"""Momentum in diagonal linear networks: train, sweep and verify the theory of its implicit bias."""
