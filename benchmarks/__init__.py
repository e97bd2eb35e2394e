"""Timings beside a named peer."""
