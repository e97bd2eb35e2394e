"""Stopping rules: pairs of pure functions that never see a label."""

from msjax.stopping.baselines import (
    answer_by,
    best_score,
    fixed_rounds,
    self_consistency,
    until_repeated,
)
from msjax.stopping.markovscale import RoundPlan, plan_rounds, posterior_rounds
from msjax.stopping.protocol import Decision, Observation, StoppingRule
from msjax.stopping.votes import (
    asc,
    certificate,
    consol,
    dsc,
    esc,
    vote_margin,
)

__all__ = [
    "Decision",
    "Observation",
    "RoundPlan",
    "StoppingRule",
    "answer_by",
    "asc",
    "best_score",
    "certificate",
    "consol",
    "dsc",
    "esc",
    "fixed_rounds",
    "plan_rounds",
    "posterior_rounds",
    "self_consistency",
    "until_repeated",
    "vote_margin",
]
