"""Studies of posteriors: calibration, coverage, recorded runs; README.md lists them."""
