"""What is trained: predictors of priors, and policies at test time."""
