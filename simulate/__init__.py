"""Monte Carlo of refinement chains, and the check of every closed form against it."""
