"""Stopping rules: pairs of pure functions that never see a label."""
