"""Rules in front of a model: made from a pilot, and what one would have done had it been there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from msjax.data.runs import Runs, answer_ids
from msjax.data.trajectory import Trajectory
from msjax.data.usage import uncached_tokens
from msjax.decision.card import decide
from msjax.errors import InputError
from msjax.llm.conversation import returned_round
from msjax.rules.grid import each_setting
from msjax.rules.protocol import Observation, StoppingRule
from msjax.rules.registry import entries
from msjax.rules.spec import Training

__all__ = ["CARD", "LiveRule", "cut_by", "rule_from_pilot", "shadow_file"]

CARD = "card"
"""Name of the rule that `msjax card` recommends."""


@dataclass(frozen=True)
class LiveRule:
    """A rule for the questions of one benchmark.

    Attributes:
        rule: the rule.
        says: the rule in one sentence, with its setting.
        looks: whether it decides by what the question showed.
    """

    rule: StoppingRule
    says: str
    looks: bool


def rule_from_pilot(
    name: str, pilot: Sequence[Trajectory], *, rounds: int, value: float, price: float
) -> LiveRule:
    """A rule of `msjax replay`, at its default setting, that learnt from labelled runs.

    Args:
        name: of the rule; "card" for the policy that `msjax card` recommends without a price.
        pilot: runs of one benchmark, each with all of `rounds` revisions, or samples after the
            first.
        rounds: most revisions, or samples after the first.
        value: worth of a correct answer.
        price: price of one uncached token in the same unit.

    Raises:
        InputError: an unknown rule, one that needs what the pilot does not have or what nobody
            knows of a question beforehand, or a pilot of other rounds.
    """
    if name == CARD:
        return _recommended(pilot, rounds)
    (pool,) = Runs.from_records(pilot).groups
    pool.require_complete()
    (entry,) = entries(pool, (name,))
    if pool.samples != rounds + 1 or (pool.recorded != rounds + 1).any():
        first = 0 if pool.parallel else 1
        what, how = ("samples", "draws") if pool.parallel else ("rounds", "revises")
        raise InputError(
            f"pilot of {pool.name} has {pool.recorded.min() - first} to {pool.samples - first} "
            f"{what}, {what} is {rounds + 1 - first}; record a pilot that always {how} "
            f"{rounds + 1 - first} times"
        )
    if entry.told is not None:
        raise InputError(f"rule {name!r}: {entry.says}; it can only be replayed")
    known = Training(pool, np.ones(pool.questions, dtype=bool), value, price)
    settings = each_setting(entry.parameters(known))
    parameters = jax.tree.map(lambda x: jnp.asarray(x)[entry.default], settings)
    says = f"{entry.says} ({entry.settings[entry.default]})"
    return LiveRule(entry.make(parameters, None), says, bool(entry.needs))


def _recommended(pilot: Sequence[Trajectory], rounds: int) -> LiveRule:
    """The policy that the card recommends, if it asks for no more than `rounds` + 1 answers."""
    use = decide(Runs.from_records(pilot)).single.use
    if use.asks > rounds + 1:
        raise InputError(
            f"the card recommends {use.name!r}, which asks for up to {use.asks} answers, and "
            f"{rounds + 1} are allowed; raise --rounds, or --samples"
        )
    return LiveRule(use.rule, use.says, use.stop != "fixed")


def cut_by(rule: StoppingRule, runs: Sequence[Trajectory]) -> list[Trajectory]:
    """The runs as they would have been, had the rule decided: ended where it stops."""
    update = jax.jit(jax.vmap(rule.update))
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(runs)), rule.init())
    ids = [answer_ids(run.answers) for run in runs]
    cut: list[Trajectory | None] = [None] * len(runs)
    for k in range(max(len(run.answers) for run in runs)):
        # Runs that are over repeat their last answer, which nobody reads.
        at = [min(k, run.revisions) for run in runs]
        scores = [run.scores[j] for run, j in zip(runs, at, strict=True)]
        seen = Observation(
            jnp.asarray([one[j] for one, j in zip(ids, at, strict=True)], jnp.int32),
            jnp.asarray([np.nan if s is None else s for s in scores], jnp.float32),
            jnp.asarray(
                [uncached_tokens([run.tokens[j]]) for run, j in zip(runs, at, strict=True)], float
            ),
        )
        state, decision = update(state, seen)
        stops, answers = np.asarray(decision.stop), np.asarray(decision.answer_id).tolist()
        for i, run in enumerate(runs):
            if cut[i] is None and (stops[i] or k == run.revisions):
                cut[i] = ended(run, k, answers[i], bool(stops[i]))
    return [run for run in cut if run is not None]


def ended(run: Trajectory, k: int, answer_id: int, by_rule: bool) -> Trajectory:
    """The run up to round k, of which answer number `answer_id` is returned."""
    return run.ended(
        k + 1,
        stop_reason="rule" if by_rule else "budget",
        returned=returned_round(run.answers[: k + 1], answer_id),
    )


def shadow_file(out: Path, rule: str) -> Path:
    """Where it is logged what a rule would have done."""
    return out.with_suffix(f".shadow-{rule}.jsonl")
