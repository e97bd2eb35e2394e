"""Rules in front of a model: made from a pilot, and what one would have done had it been there."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from msjax.data.runs import Runs
from msjax.data.trajectory import Trajectory
from msjax.decision.card import decide
from msjax.errors import InputError
from msjax.llm.answers import returned_round
from msjax.llm.live_rule import CARD, LiveRule, live_rule, require_live, short_hash
from msjax.posterior.for_rules import PosteriorForRules
from msjax.posterior.posterior import AUTO
from msjax.posterior.store import SavedPosterior
from msjax.rules.protocol import Observation, StoppingRule, run_rule_on_each
from msjax.rules.registry import find_rule, find_rule_for
from msjax.rules.spec import SCORES, VERDICTS, Curve, Training

__all__ = [
    "CARD",
    "cut_by",
    "rule_from_pilot",
    "rule_from_posterior",
    "shadow_file",
]


def rule_from_pilot(
    name: str,
    pilot: Sequence[Trajectory],
    *,
    rounds: int,
    value: float,
    price: float,
    key: PRNGKeyArray | None = None,
    model: str = AUTO,
    judged: bool = False,
) -> LiveRule:
    """A rule, at its default setting or the one named, that learnt from labelled runs.

    Args:
        name: as for `msjax.rules.find_rule`, or "card" for the policy that `msjax card` recommends
            without a price.
        pilot: runs of one benchmark, each with all of `rounds` revisions, or samples after the
            first.
        rounds: most revisions, or samples after the first.
        value: utility of a correct answer.
        price: price of one uncached token in the same unit.
        key: of the benchmark, the `seed` of `msjax.posterior.fit`; that of `msjax fit` for
            its first benchmark if None.
        model: whose accuracy curve markovscale follows, as `msjax fit --model` has it.
        judged: whether a judge will be asked.

    Raises:
        InputError: an unknown rule, one that needs what the pilot does not have or what nobody
            knows of a question beforehand, or a pilot of other rounds.
    """
    if name == CARD:
        return _recommended(pilot, rounds, judged)
    (runs,) = Runs.from_records(pilot).groups
    runs.require_complete()
    spec = find_rule(name, runs)
    if runs.samples != rounds + 1 or (runs.recorded != rounds + 1).any():
        first = 0 if runs.parallel else 1
        what, how = ("samples", "draws") if runs.parallel else ("rounds", "revises")
        raise InputError(
            f"pilot of {runs.name} has {runs.recorded.min() - first} to {runs.samples - first} "
            f"{what}, {what} is {rounds + 1 - first}; record a pilot that always {how} "
            f"{rounds + 1 - first} times"
        )
    require_live(spec, name, judged)
    if key is None:
        key = jax.random.fold_in(jax.random.key(0), 0)
    everyone = np.ones(runs.questions, dtype=bool)
    return live_rule(spec, Training(runs, everyone, value, price, PosteriorForRules(key, model)))


def rule_from_posterior(
    name: str,
    posterior: SavedPosterior,
    benchmark: str,
    *,
    rounds: int,
    value: float,
    price: float,
) -> LiveRule:
    """A rule that follows the accuracy curve of a posterior that `msjax fit --out` saved.

    Made from the same runs, with the same model and key, it is the rule of `rule_from_pilot`.

    Args:
        name: of a rule that learns from the curve alone: markovscale, with its options.
        posterior: what was saved.
        benchmark: one of its benchmarks.
        rounds: most revisions.
        value: utility of a correct answer.
        price: price of one uncached token in the same unit.

    Raises:
        InputError: another rule, a benchmark that is not there, more rounds than its pilot had, or
            one whose runs were stopped by looking at the label.
    """
    spec = find_rule_for(name, rounds + 1, "rounds", benchmark)
    if not spec.from_curve:
        raise InputError(
            f"rule {name!r} learns from answers, which a posterior does not hold; give the pilot "
            "itself, or follow its curve with markovscale"
        )
    if benchmark not in posterior.benchmarks:
        raise InputError(
            f"the posterior knows {', '.join(posterior.benchmarks)} but not {benchmark}; fit a "
            "pilot of that benchmark"
        )
    b = posterior.benchmarks.index(benchmark)
    tokens = posterior.tokens_per_round[b, 1 : rounds + 1]
    if len(tokens) < rounds or np.isnan(tokens).any():
        raise InputError(
            f"the pilot of {benchmark} has fewer rounds than rounds = {rounds}, or no tokens, so "
            "their cost is unknown; give fewer rounds"
        )
    if posterior.censored[b]:
        raise InputError(
            f"runs of {benchmark} were stopped by looking at the label, so what revising breaks is "
            "unknown; record a pilot that always revises"
        )
    return live_rule(spec, Curve(posterior.accuracy[:, b, : rounds + 1], tokens, value, price))


def _recommended(pilot: Sequence[Trajectory], rounds: int, judged: bool) -> LiveRule:
    """The policy that the card recommends, if it asks for no more than `rounds` + 1 answers."""
    use = decide(Runs.from_records(pilot)).single.use
    if use.longest is not None:
        limit = f"--max-new-tokens {use.longest}" if use.longest else "a larger --max-new-tokens"
        raise InputError(
            f"the card recommends to {use.says}, which no rule can do; give {limit} --rounds 0"
        )
    if use.asks > rounds + 1:
        raise InputError(
            f"the card recommends {use.name!r}, which asks for up to {use.asks} answers, and "
            f"{rounds + 1} are allowed; raise --rounds, or --samples"
        )
    if use.stop == "until_accepted" and not judged:
        raise InputError(
            f"the card recommends {use.name!r}, and no judge is asked here; name the one of the "
            "pilot (--judge)"
        )
    looks = use.stop != "fixed"
    needs = VERDICTS if use.stop == "until_accepted" else frozenset()
    needs |= SCORES if use.returns == "best_score" else frozenset()
    return LiveRule(use.rule, use.says, short_hash([use.name]), looks, needs=needs)


def cut_by(rule: StoppingRule, runs: Sequence[Trajectory]) -> list[Trajectory]:
    """The runs as they would have been, had the rule decided: ended where it stops."""
    known = Runs.from_records(runs)
    seen = Observation(
        jnp.asarray(known.answers),
        jnp.asarray(known.scores),
        jnp.asarray(known.uncached, jnp.float32),
        jnp.asarray(known.verdicts, jnp.int32),
    )
    ran = jax.device_get(run_rule_on_each(rule, seen, jnp.asarray(known.recorded)))
    ends = zip(
        runs, *(x.tolist() for x in (ran.n_used, ran.answer_id, ran.hit_budget)), strict=True
    )
    return [ended(run, n - 1, answer, not hit_budget) for run, n, answer, hit_budget in ends]


def ended(run: Trajectory, k: int, answer_id: int, by_rule: bool) -> Trajectory:
    """The run up to round k, of which answer number `answer_id` is returned."""
    return run.ended(
        k + 1,
        stop_reason="rule" if by_rule else "budget",
        returned=returned_round(run.answers[: k + 1], answer_id),
    )


def shadow_file(out: Path, rule: str) -> Path:
    """Where it is logged what a rule would have done."""
    return out.with_suffix(f".shadow-{rule.replace(':', '.')}.jsonl")
