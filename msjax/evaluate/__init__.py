"""Rules over recorded runs: replay, cross-fitting, paired comparison."""
