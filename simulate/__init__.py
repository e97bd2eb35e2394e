"""Studies by simulation of what the theory and the rules claim; README.md lists them."""
