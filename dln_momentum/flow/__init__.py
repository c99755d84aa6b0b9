"""Continuous time: momentum gradient flow, gradient flow and what the theory says of them."""
