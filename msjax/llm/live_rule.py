"""A rule in front of a model: what it is made of, and rules that learn from no labels.

Nothing here imports what fits posteriors, so that a proxy starts at once.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from msjax.data.trajectory import Trajectory
from msjax.errors import InputError
from msjax.rules.grid import each_setting
from msjax.rules.markovscale import RoundPlan
from msjax.rules.protocol import StoppingRule
from msjax.rules.registry import find_rule_for
from msjax.rules.spec import VERDICTS, Curve, RuleSpec, Training

__all__ = [
    "CARD",
    "LiveRule",
    "learns",
    "live_rule",
    "require_live",
    "require_recorded_with",
    "rule_without_pilot",
    "short_hash",
]

CARD = "card"
"""Name of the rule that `msjax card` recommends."""


@dataclass(frozen=True)
class LiveRule:
    """A rule for the questions of one benchmark.

    Attributes:
        rule: the rule.
        says: the rule in one sentence, with its setting.
        identity: is the same for rules of one name that decide alike: a short hash of the numbers
            they were given and learnt, to six digits.
        looks: whether it decides by what the question showed.
        plan: the plan it follows, if it follows one.
        needs: what it looks at, of `msjax.rules.spec.NEEDS`.
    """

    rule: StoppingRule
    says: str
    identity: str
    looks: bool
    plan: RoundPlan | None = None
    needs: frozenset[str] = frozenset()


@lru_cache(maxsize=256)
def rule_without_pilot(name: str, budget: int, kind: str, *, judged: bool = False) -> LiveRule:
    """A rule that learns nothing from labelled runs, at its default setting or the one named.

    Args:
        name: as for `msjax.rules.find_rule`.
        budget: the most answers.
        kind: "rounds" or "samples".
        judged: whether a judge will be asked.

    Raises:
        InputError: an unknown rule, one that learns from labelled runs, or that needs what nobody
            knows of a question beforehand, or a judge that is not there.
    """
    if name == CARD:
        raise _LearnsError(f"rule {name!r} needs a pilot: the runs from which the card is made")
    spec = find_rule_for(name, budget, kind, "what is asked")
    require_live(spec, name, judged)
    return live_rule(spec, _NoRuns(name))


def learns(name: str, budget: int, kind: str) -> bool:
    """Whether a rule learns from labelled runs; see `rule_without_pilot`."""
    try:
        rule_without_pilot(name, budget, kind, judged=True)
    except _LearnsError:
        return True
    return False


class _LearnsError(InputError):
    pass


class _NoRuns(Training):
    """Stands for labelled runs where there are none: no field has a value."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getattr__(self, wanted: str) -> Any:
        raise _LearnsError(
            f"rule {self._name!r} learns from labelled runs; give a pilot, or a rule that learns "
            "nothing, such as until_repeated"
        )


def require_live(spec: RuleSpec, name: str, judged: bool) -> None:
    """Raises InputError for a rule that can only be replayed."""
    if spec.side_info is not None:
        raise InputError(f"rule {name!r}: {spec.says}; it can only be replayed")
    if spec.needs & VERDICTS and not judged:
        raise InputError(
            f"rule {name!r}: {spec.says}, and no judge is asked here; it can be replayed, or name "
            "a judge where one can be named"
        )


def require_recorded_with(
    name: str, pilot: Sequence[Trajectory], settings: Mapping[str, str | int | float | None]
) -> None:
    """Raises InputError if `msjax run` recorded a pilot with other settings than these.

    Runs that came from elsewhere do not say what scored or judged them, and are taken.

    Args:
        name: of the rule that learnt from the pilot.
        pilot: its runs.
        settings: as a `Trajectory` has them; None: left out, as by default.
    """
    for run in pilot:
        if "rule" not in run.settings:
            continue
        for option, here in settings.items():
            there = run.settings.get(option)
            if there != here:
                usual = "token_logprob" if option == "score" else "none"
                was, now = (usual if value is None else value for value in (there, here))
                raise InputError(
                    f"rule {name!r} learnt from a pilot with {option} = {was}, but this run has "
                    f"{option} = {now}; give the options of the pilot, or record one with these"
                )


def live_rule(spec: RuleSpec, train: Training | Curve) -> LiveRule:
    """The rule at its default setting, with what it learns from these runs."""
    settings = each_setting(spec.parameters(train))  # type: ignore[arg-type]
    parameters = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[spec.default]), settings)
    setting = spec.settings[spec.default]
    says = f"{spec.says} ({setting})" if setting else spec.says
    plan = parameters if isinstance(parameters, RoundPlan) else None
    if plan is not None:
        says += f", N* = {plan.optimal_rounds}"
    identity = short_hash([f"{x:.6g}" for x in _numbers(parameters)])
    return LiveRule(spec.make(parameters, None), says, identity, spec.looks, plan, spec.needs)


def short_hash(texts: Sequence[str]) -> str:
    """The first 16 digits of the SHA-256 of texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _numbers(parameters: Any) -> list[float]:
    arrays = [np.asarray(leaf, dtype=float) for leaf in jax.tree.leaves(parameters)]
    return [number for array in arrays for number in array.ravel().tolist()]
