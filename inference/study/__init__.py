"""The study: real models, their questions, every strategy, recorded as the plan says."""
