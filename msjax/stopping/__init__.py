"""Stopping rules: pairs of pure functions that never see a label."""

from msjax.stopping.baselines import fixed_rounds
from msjax.stopping.markovscale import RoundPlan, plan_rounds, posterior_rounds
from msjax.stopping.protocol import Decision, Observation, StoppingRule

__all__ = [
    "Decision",
    "Observation",
    "RoundPlan",
    "StoppingRule",
    "fixed_rounds",
    "plan_rounds",
    "posterior_rounds",
]
