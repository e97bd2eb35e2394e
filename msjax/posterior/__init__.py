"""Posteriors over the chain: models, fits, diagnostics, comparison, checks."""
