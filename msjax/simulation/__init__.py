"""Simulators of chains, compiled and vectorised, and exact enumeration."""
