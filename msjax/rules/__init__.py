"""Stopping rules: the protocol, every rule, and rules by name (docs/stopping.md)."""

from msjax.rules.protocol import Decision, Observation, Ran, StoppingRule, run_rule
from msjax.rules.registry import find_rule, find_rules, register_rule, rule_names
from msjax.rules.spec import RuleSpec, Training

__all__ = [
    "Decision",
    "Observation",
    "Ran",
    "RuleSpec",
    "StoppingRule",
    "Training",
    "find_rule",
    "find_rules",
    "register_rule",
    "rule_names",
    "run_rule",
]
