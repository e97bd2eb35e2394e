"""What was recorded: trajectories, their files, and the same as arrays."""
