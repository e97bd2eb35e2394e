"""The ways to stop, by name: what each may vary, needs and learns (docs/stopping.md)."""

from functools import cache
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from msjax.data.runs import Runs
from msjax.errors import InputError
from msjax.rules import fixed, optpo, optscale, votes
from msjax.rules.belief import SignalDistribution, belief_programme, belief_rule
from msjax.rules.grid import Grid
from msjax.rules.learnt import (
    judge_draws,
    keep_wrong_draws,
    score_distributions,
    score_threshold,
    vote_rates,
    wrong_answers,
)
from msjax.rules.markovscale import (
    RoundPlan,
    plan_rounds,
    posterior_rounds,
    question_rounds,
    without_gate,
    without_optimal_rounds,
)
from msjax.rules.most_probable import belief_answers
from msjax.rules.protocol import StoppingRule
from msjax.rules.registry import ROUNDS, SAMPLES, register_rule
from msjax.rules.spec import (
    ANSWERS,
    PROBABILITIES,
    SCORES,
    VERDICTS,
    Curve,
    RuleSpec,
    Training,
    at_most,
    constant,
    offered_by,
)
from msjax.theory.answer_posterior import AnswerDistribution
from msjax.theory.chain import TwoStateChain, accuracy_curve
from msjax.theory.judge import Judge

__all__ = ["answer_model", "programme"]

T = TypeVar("T", TwoStateChain, Judge)


@register_rule("fixed", returns="last", listed=("majority", "best_score", "most_probable"))
def _fixed(budget: int, kind: str) -> RuleSpec:
    if kind == "rounds":
        answers = list(range(1, budget + 1))
        settings = tuple(f"rounds={n - 1}" for n in answers)
    else:
        usual = (1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 40, 64)
        answers = sorted({n for n in usual if n < budget} | {budget})
        settings = tuple(f"samples={n}" for n in answers)
    every = fixed.fixed_rounds(max(budget - 1, 1))
    return RuleSpec(
        f"a fixed number of {kind}",
        lambda n, _: at_most(every, n),
        settings,
        constant(answers),
        default=len(answers) - 1,
        looks=False,
    )


@register_rule("until_repeated")
def _until_repeated(budget: int) -> RuleSpec:
    return RuleSpec(
        "until the same answer has come so many times in a row",
        lambda times, _: fixed.until_repeated(budget, times),
        tuple(f"times={m}" for m in (2, 3, 4)),
        constant([2, 3, 4]),
        needs=ANSWERS,
    )


_OTHERWISE = {"first": "first", "majority": "one given most often"}


@register_rule("until_accepted", otherwise=("last", "first", "majority"))
def _until_accepted(budget: int, otherwise: fixed.Otherwise = "last") -> RuleSpec:
    other = "" if otherwise == "last" else f", or after all of them the {_OTHERWISE[otherwise]}"
    return RuleSpec(
        f"until the judge accepts an answer{other}",
        lambda *_: fixed.until_accepted(budget, otherwise),
        ("",),
        constant([0]),
        needs=VERDICTS,
    )


@register_rule("until_score")
def _until_score(budget: int) -> RuleSpec:
    return RuleSpec(
        "until an answer's score reaches the threshold that was worth most on labelled runs",
        lambda threshold, _: fixed.until_score(budget, threshold),
        ("",),
        lambda train: np.array([score_threshold(train)], np.float32),
        needs=SCORES,
    )


# Rounds


@register_rule(
    "markovscale",
    asked=ROUNDS,
    returns="last",
    estimate=("posterior", "plug_in", "empirical"),
    risk=("neutral", "averse"),
    scores=("no", "yes"),
    without=("nothing", "gate", "n_star"),
)
def _markovscale(
    budget: int,
    estimate: str = "posterior",
    risk: str = "neutral",
    scores: str = "no",
    without: str = "nothing",
) -> RuleSpec:
    horizon = max(budget - 1, 1)
    if scores == "yes":
        if (estimate, risk, without) != ("posterior", "neutral", "nothing"):
            raise InputError(
                "rules: markovscale,scores=yes plans each question by point estimates; it has no "
                "other option"
            )
        return RuleSpec(
            "MarkovScale0, gate and N* of each question by the score of its first answer",
            lambda p, _: question_rounds(p[0], p[1], price=1.0),
            ("",),
            _rates_and_costs,
            needs=PROBABILITIES,
        )
    confidences = (0.5, 0.8, 0.9, 0.95)

    def accuracy(train: Training | Curve) -> Array | np.ndarray:
        if estimate == "posterior" or isinstance(train, Curve):
            return train.accuracy
        if estimate == "empirical":
            return train.known.right.mean(axis=0, keepdims=True)
        return accuracy_curve(_one(_mean(train.rates)), train.runs.rounds)

    def plans(train: Training | Curve) -> RoundPlan:
        curve = accuracy(train)
        found = [
            plan_rounds(
                curve, train.tokens, value=train.value, price=train.price, confidence=confidence
            )
            for confidence in (confidences if risk == "averse" else (None,))
        ]
        return jax.tree.map(lambda *x: jnp.stack(x), *found)

    def make(plan: RoundPlan, _: Any) -> StoppingRule:
        rule = posterior_rounds(plan)
        if without == "gate":
            return without_gate(rule)
        return without_optimal_rounds(rule, horizon) if without == "n_star" else rule

    says = {
        "posterior": "MarkovScale's gate and N*, by E[p_k] over posterior draws (risk-neutral)",
        "plug_in": "MarkovScale's gate and N*, by p_k at the posterior mean of the rates",
        "empirical": "MarkovScale's gate and N*, by the accuracies observed, no Markov assumption",
    }[estimate]
    if risk == "averse":
        says = says.replace(" (risk-neutral)", "")
        says += ", going on only if the gain is larger than the cost with this probability"
    says += {
        "nothing": "",
        "gate": ", never stopping at the first answer",
        "n_star": ", the gate alone",
    }[without]
    return RuleSpec(
        says,
        make,
        tuple(f"confidence={c:g}" for c in confidences) if risk == "averse" else ("",),
        plans,
        default=confidences.index(0.9) if risk == "averse" else 0,
        looks=False,
        from_curve=estimate == "posterior",
    )


@register_rule(
    "belief",
    asked=ROUNDS,
    returns="last",
    listed=("most_probable",),
    joint=("most_probable",),
    scores=("no", "yes", "only"),
    verdicts=("no", "yes", "only"),
)
def _belief(
    budget: int, scores: str = "no", verdicts: str = "no", returned: str = "last"
) -> RuleSpec:
    if "only" in (scores, verdicts) and "no" not in (scores, verdicts):
        raise InputError("rules: belief looks at scores=only, or verdicts=only, or both with yes")
    if returned == "most_probable":
        if (scores, verdicts) != ("no", "no"):
            raise InputError(
                "rules: belief+most_probable looks at answers, not at scores or verdicts"
            )
        return RuleSpec(
            "belief in every answer from the order of all, returning the most probable one",
            lambda p, _: belief_answers(p[0], p[1], price=1.0),
            ("",),
            lambda train: _one((answer_model(train), _costs(train))),
            needs=ANSWERS,
        )
    changes = "only" not in (scores, verdicts)

    def learn(train: Training) -> Any:
        rates = train.rates
        return _one(
            {
                "chain": (rates.p0, rates.p_ic, rates.p_ci),
                "costs": _costs(train),
                "keep_wrong": keep_wrong_draws(train) if changes else None,
                "scores": score_distributions(train) if scores != "no" else None,
                "verdicts": judge_draws(train) if verdicts != "no" else None,
            }
        )

    def make(p: Any, _: Any) -> StoppingRule:
        signals = SignalDistribution(p["keep_wrong"], p["scores"], p["verdicts"])
        return belief_rule(TwoStateChain(*p["chain"]), p["costs"], signals, price=1.0)

    sources = ["its scores"] * (scores != "no") + ["verdicts on it"] * (verdicts != "no")
    sources += ["whether revisions change it"] * changes
    needs = frozenset[str]()
    needs |= ANSWERS if changes else needs
    needs |= PROBABILITIES if scores != "no" else needs
    needs |= VERDICTS if verdicts != "no" else needs
    return RuleSpec(
        f"belief in each question's answer from {' and from '.join(sources)}",
        make,
        ("",),
        learn,
        needs=needs,
    )


def programme(runs: Runs) -> RuleSpec:
    """The best time to stop by changed answers and verdicts, if the benchmark were one chain.

    It looks at whichever of the two the runs have, returns the last answer, and is told the rates
    of the very questions it is judged on: a yardstick for rounds.
    """
    return _programme(runs.samples, runs.answered, VERDICTS <= offered_by(runs))


@cache
def _programme(budget: int, answered: bool, judged: bool) -> RuleSpec:
    def make(parameters: Any, _: Any) -> StoppingRule:
        chain, rho, judge, cost = parameters
        return belief_programme(chain, cost, SignalDistribution(rho, verdicts=judge), price=1.0)

    def known(train: Training) -> Any:
        rho = jnp.float32(keep_wrong_draws(train).mean()) if answered else None
        judge = _mean(judge_draws(train)) if judged else None
        return _one((_mean(train.rates), rho, judge, _costs(train)))

    seen = [*["changed answers"] * answered, *["verdicts"] * judged]
    says = f"dynamic programme of one chain whose rates it is told, by {' and '.join(seen)}"
    needs = (ANSWERS if answered else frozenset()) | (VERDICTS if judged else frozenset())
    return RuleSpec(says, make, ("rates of all questions",), known, needs=needs, name="programme")


def answer_model(train: Training) -> AnswerDistribution:
    """How answers come about, by point estimates: rates, rho and effective wrong answers."""
    keep_wrong = jnp.float32(keep_wrong_draws(train).mean())
    return AnswerDistribution(_mean(train.rates), keep_wrong, jnp.float32(wrong_answers(train)))


def _rates_and_costs(train: Training) -> Any:
    return _one((_mean(train.rates), _costs(train)))


def _costs(train: Training) -> Array:
    """Costs of rounds 1..K in units of a correct answer, so that its utility may be traced."""
    return jnp.asarray(train.tokens * train.price / train.value, jnp.float32)


def _mean(rates: T) -> T:
    return jax.tree.map(lambda x: x.mean(dtype=jnp.float32), rates)


def _one(parameters: Any) -> Any:
    """Parameters of a single setting."""
    return jax.tree.map(
        lambda x: x[None] if isinstance(x, jax.core.Tracer) else jnp.asarray(np.asarray(x)[None]),
        parameters,
    )


# Samples

_THRESHOLDS = (0.8, 0.9, 0.95, 0.975, 0.99)


@register_rule("asc", asked=SAMPLES, returns="majority")
def _asc(budget: int) -> RuleSpec:
    return RuleSpec(
        "until the leader beats the runner-up with this Beta posterior",
        lambda threshold, _: votes.asc(budget, threshold),
        tuple(f"threshold={t:g}" for t in _THRESHOLDS),
        constant(_THRESHOLDS),
        default=_THRESHOLDS.index(0.95),
        needs=ANSWERS,
    )


@register_rule("esc", asked=SAMPLES, returns="majority")
def _esc(budget: int) -> RuleSpec:
    return RuleSpec(
        "until all five answers of a window agree",
        lambda *_: votes.esc(budget),
        ("",),
        constant([5]),
        needs=ANSWERS,
    )


@register_rule("consol", asked=SAMPLES, returns="majority")
def _consol(budget: int) -> RuleSpec:
    return RuleSpec(
        "ConSol's sequential probability ratio test with its public constants, a lead of 3",
        lambda *_: votes.consol(budget),
        ("",),
        constant([3]),
        needs=ANSWERS,
    )


@register_rule("vote_margin", asked=SAMPLES, returns="majority")
def _vote_margin(budget: int) -> RuleSpec:
    margins = tuple(range(1, 9))
    return RuleSpec(
        "until the leader is so many votes ahead; OptPO with equal wrong rates",
        lambda margin, _: votes.vote_margin(budget, margin),
        tuple(f"margin={m}" for m in margins),
        constant(margins),
        default=margins.index(3),
        needs=ANSWERS,
    )


@register_rule("optpo", asked=SAMPLES, returns="majority")
def _optpo(budget: int) -> RuleSpec:
    factors = (4.0, 20.0, 100.0)

    def learn(train: Training) -> np.ndarray:
        rates = vote_rates(train)
        return np.array([[*rates, factor] for factor in factors])

    return RuleSpec(
        "until the Bayes factor of leader against runner-up is reached, vote rates estimated",
        lambda p, _: optpo.optpo(budget, p[0], p[1], p[2]),
        tuple(f"bayes_factor={f:g}" for f in factors),
        learn,
        default=factors.index(20),
        needs=ANSWERS,
    )


@register_rule("certificate", asked=SAMPLES, returns="majority")
def _certificate(budget: int) -> RuleSpec:
    deltas = (0.05, 0.1, 0.2)
    return RuleSpec(
        "until two e-processes certify the leader",
        lambda delta, _: votes.certificate(budget, delta),
        tuple(f"delta={d:g}" for d in deltas),
        constant(deltas),
        default=deltas.index(0.1),
        needs=ANSWERS,
    )


@register_rule("dsc", asked=SAMPLES, returns="majority")
def _dsc(budget: int) -> RuleSpec:
    return RuleSpec(
        "told which questions are hard by the scores of all samples, which is free information",
        lambda threshold, difficulty: votes.dsc(budget, difficulty, threshold),
        tuple(f"threshold={t:g}" for t in _THRESHOLDS),
        constant(_THRESHOLDS),
        default=_THRESHOLDS.index(0.95),
        needs=ANSWERS | SCORES,
        side_info=_difficulty,
    )


def _difficulty(runs: Runs) -> np.ndarray:
    """Thirds of the questions by mean score of all samples: easy, medium, hard."""
    mean = np.nanmean(runs.scores, axis=1)
    cuts = np.quantile(mean, [1 / 3, 2 / 3])
    return np.asarray(2 - np.searchsorted(cuts, mean), dtype=np.int32)


@register_rule("optscale", asked=SAMPLES, returns="best_score", peek=("every", "once"))
def _optscale(budget: int, peek: Literal["every", "once"] = "every") -> RuleSpec:
    s_mins, confidences = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99), (0.5, 0.9, 0.95, 0.99)
    grid = [(s, c) for s in s_mins for c in confidences]
    values = Grid((np.array(s_mins, np.float32), np.array(confidences, np.float32)))
    first = optscale.PEEKS.get(budget, max(1, budget // 3))

    def every(p: Any, _: Any) -> StoppingRule:
        return optscale.optscale(budget, s_min=p[0], confidence=p[1])

    def once(p: Any, _: Any) -> StoppingRule:
        return optscale.optscale_peek_once(budget, s_min=p[0], confidence=p[1], peek=first)

    return RuleSpec(
        "OptScale0, fitted again after every sample as the paper says"
        if peek == "every"
        else "OptScale0, fitted once as the public code does",
        every if peek == "every" else once,
        tuple(f"s_min={s:g},confidence={c:g}" for s, c in grid),
        lambda _: values,
        default=grid.index((0.9, 0.9)),
        needs=PROBABILITIES,
    )
