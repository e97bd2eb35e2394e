"""Asking a model and letting it revise: engines, benchmarks, the loop, and its accounts."""
