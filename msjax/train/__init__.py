"""Training: on votes at test time (ttrl), and of priors from question features (priors)."""
