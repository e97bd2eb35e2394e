"""Priors of questions from their features (MarkovScale-t, OptScale-t)."""
