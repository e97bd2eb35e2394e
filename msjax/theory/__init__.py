"""Closed forms, pure JAX: chains, populations, beliefs, best of N, votes."""
