"""What a device computes, and how fast: one command for a bare machine.

    python -m benchmarks.accelerator --minutes 8 --json accelerator.json

Every part is a process of its own with a share of the time: what it measures is on disk at once,
and neither a failure nor the end of its time takes from the others.
"""
