"""Rules on benchmarks of known distribution: what they are worth, and what the best rule would be.

A benchmark is simulated with answers, scores and tokens as a `Runs`, so that the very rules of
`msjax replay` run on it. They learn from a pilot of few questions and are judged on many others.
The yardstick is the best of all rules that see which revisions changed the answer, by dynamic
programming on the tree of what may be seen, whatever the distribution of the benchmark.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from msjax.data.runs import Runs
from msjax.errors import InputError, require
from msjax.evaluate.replay import outcome, replay
from msjax.evaluate.streams import streams
from msjax.posterior.for_rules import PosteriorForRules
from msjax.rules.markovscale import RoundPlan, plan_rounds
from msjax.rules.spec import RuleSpec, Training
from msjax.theory.chain import TwoStateChain, accuracy_curve
from msjax.theory.judge import Judge

__all__ = [
    "POPULATIONS",
    "PilotStudy",
    "Population",
    "RuleWorth",
    "best_worth_seeing_changes",
    "judge_rules",
    "plan_from_pilots",
    "simulate_pool",
]

_MOST_NODES = 1 << 16


class Population(NamedTuple):
    """A distribution of benchmarks.

    Attributes:
        name, says: what it is.
        states: right or wrong [question, answer] of so many questions and rounds.
        keep_wrong: probability that a revision from wrong to wrong keeps the answer.
        right_scores, wrong_scores: Beta distributions of the verifier's score.
        judge: how often a judge accepts; without one there are no verdicts. Rules that see verdicts
            may do better than the yardstick, which sees changes.
    """

    name: str
    says: str
    states: Callable[[np.random.Generator, int, int], Bool[np.ndarray, "question answer"]]
    keep_wrong: float = 0.7
    right_scores: tuple[float, float] = (2.0, 2.0)
    wrong_scores: tuple[float, float] = (2.0, 2.0)
    judge: Judge | None = None


class RuleWorth(NamedTuple):
    """What a rule was worth: means over pilots, with standard errors over these.

    Attributes:
        rule: its name.
        accuracy, tokens: means per question.
        worth: value * accuracy - price * tokens.
        tokens_error, worth_error: standard errors of two of them.
        regret: worth of the best rule that sees changes, less this one's.
        overconfidence: the rule's own P(its answer is right) less accuracy, and the standard error
            of that over pilots; NaN for a rule that holds no belief.
    """

    rule: str
    accuracy: float
    tokens: float
    tokens_error: float
    worth: float
    worth_error: float
    regret: float
    overconfidence: float
    overconfidence_error: float


class PilotStudy(NamedTuple):
    """Plans made from pilots of one size, and what they are worth in truth.

    Attributes:
        questions: of the pilot.
        plug_in, posterior: mean worth of the two rules, over pilots.
        advantage: mean of posterior - plug-in, paired, with its standard error.
        expected_advantage: the same in posterior expectation, which is never negative; for true
            chains drawn from the prior it has the same mean and hardly any noise.
        risky: share of pilots in which the risk-averse rule went on although that does not pay.
    """

    questions: int
    plug_in: float
    posterior: float
    advantage: float
    advantage_error: float
    expected_advantage: float
    risky: float


def _follow(
    random: np.random.Generator,
    p0: np.ndarray,
    p_ic: np.ndarray,
    p_ci: np.ndarray,
    rounds: int,
) -> Bool[np.ndarray, "question answer"]:
    """Chains with rates of their own."""
    states = np.empty((len(p0), rounds + 1), dtype=bool)
    states[:, 0] = random.random(len(p0)) < p0
    for k in range(rounds):
        change = np.where(states[:, k], p_ci, p_ic)
        states[:, k + 1] = states[:, k] ^ (random.random(len(p0)) < change)
    return states


def _homogeneous(
    random: np.random.Generator, questions: int, rounds: int
) -> Bool[np.ndarray, "question answer"]:
    one = np.ones(questions)
    return _follow(random, 0.5 * one, 0.3 * one, 0.08 * one, rounds)


def _heterogeneous(
    random: np.random.Generator, questions: int, rounds: int
) -> Bool[np.ndarray, "question answer"]:
    p0 = random.beta(1.0, 1.0, questions)
    p_ic, p_ci = random.beta(0.6, 1.4, questions), random.beta(0.3, 3.0, questions)
    return _follow(random, p0, p_ic, p_ci, rounds)


def _mover_stayer(
    random: np.random.Generator, questions: int, rounds: int
) -> Bool[np.ndarray, "question answer"]:
    settled = random.random(questions) < 0.5
    p0 = np.where(settled, random.random(questions) < 0.6, 0.4)
    p_ic, p_ci = np.where(settled, 0, 0.5), np.where(settled, 0, 0.15)
    return _follow(random, p0, p_ic, p_ci, rounds)


def _second_order(
    random: np.random.Generator, questions: int, rounds: int
) -> Bool[np.ndarray, "question answer"]:
    """A question that just changed its state is likelier to change back."""
    states = np.empty((questions, rounds + 1), dtype=bool)
    states[:, 0] = before = random.random(questions) < 0.5
    for k in range(rounds):
        now = states[:, k]
        moved = now ^ before
        change = np.where(now, np.where(moved, 0.3, 0.05), np.where(moved, 0.5, 0.2))
        states[:, k + 1] = now ^ (random.random(questions) < change)
        before = now
    return states


POPULATIONS = (
    Population("homogeneous", "one chain (.5, .3, .08)", _homogeneous),
    Population(
        "heterogeneous",
        "p0 ~ Uniform, p_ic ~ Beta(.6, 1.4), p_ci ~ Beta(.3, 3), independent",
        _heterogeneous,
    ),
    Population(
        "mover_stayer",
        "half of the questions settled (.6 of them right), the others a chain (.4, .5, .15)",
        _mover_stayer,
    ),
    Population(
        "second_order",
        "rates .2 and .05, but .5 and .3 just after a change of state; p0 = .5",
        _second_order,
    ),
    Population(
        "noisy_verifier",
        "the homogeneous chain, with scores Beta(4, 2) of right and Beta(2, 3) of wrong answers",
        _homogeneous,
        right_scores=(4.0, 2.0),
        wrong_scores=(2.0, 3.0),
    ),
)


def simulate_pool(
    population: Population,
    random: np.random.Generator,
    questions: int,
    rounds: int,
    tokens: float = 100.0,
) -> Runs:
    """A sequential pool of that population; every answer costs `tokens`.

    The right answer is one answer, a wrong one that is not kept is a new one.

    Raises InputError for questions or rounds < 1.
    """
    require("questions", questions, lambda x: x >= 1, "give at least one question")
    require("rounds", rounds, lambda x: x >= 1, "give at least one round")
    right = population.states(random, questions, rounds)
    answers = np.empty(right.shape, dtype=np.int64)
    # The right answer is 0, wrong ones number on in each question.
    answers[:, 0] = np.where(right[:, 0], 0, 1)
    newest = np.ones(questions, dtype=np.int64)
    for k in range(1, rounds + 1):
        keeps = (random.random(questions) < population.keep_wrong) & ~right[:, k - 1]
        newest += ~right[:, k] & ~keeps
        answers[:, k] = np.where(right[:, k], 0, np.where(keeps, answers[:, k - 1], newest))
    scores = np.where(
        right,
        random.beta(*population.right_scores, right.shape),
        random.beta(*population.wrong_scores, right.shape),
    )
    verdicts = None
    if population.judge is not None:
        verdicts = random.random(right.shape) < np.where(right, *population.judge)
    return Runs.from_arrays(
        right,
        answers=answers,
        scores=scores,
        verdicts=verdicts,
        tokens={"completion": np.full(right.shape, tokens)},
        benchmark=population.name,
    )


def judge_rules(
    population: Population,
    rules: Sequence[RuleSpec],
    key: PRNGKeyArray,
    *,
    pilot: int = 50,
    pilots: int = 10,
    questions: int = 20_000,
    rounds: int = 6,
    value: float = 1.0,
    price: float = 0.0,
) -> list[RuleWorth]:
    """Worth of rules, each at its default setting, that learn from `pilots` pilots in turn.

    All rules meet the same `questions` questions.
    """
    random = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    test = simulate_pool(population, random, questions, rounds)
    met = streams(test, key, 1)
    best = best_worth_seeing_changes(population, random, rounds, value, price)
    learnt = [simulate_pool(population, random, pilot, rounds) for _ in range(pilots)]
    found = []

    def standard_error(values: Float[np.ndarray, " pilot"]) -> float:
        return float(values.std(ddof=1) / np.sqrt(pilots)) if pilots > 1 else np.nan

    posterior = PosteriorForRules(jax.random.fold_in(key, 1))
    trainings = [
        Training(pool, np.ones(pilot, dtype=bool), value, price, posterior) for pool in learnt
    ]
    for rule in rules:
        accuracy, tokens, belief = [], [], []
        for training in trainings:
            chosen = jax.tree.map(
                lambda x, i=rule.default: np.asarray(x)[i : i + 1], rule.parameters(training)
            )
            result = outcome(test.tokens, met, replay(rule.make, met, chosen))
            accuracy.append(result.accuracy.mean())
            tokens.append(result.uncached.mean())
            belief.append(result.belief.mean())
        worth = value * np.array(accuracy) - price * np.array(tokens)
        over = np.array(belief) - np.array(accuracy)
        found.append(
            RuleWorth(
                rule.name,
                float(np.mean(accuracy)),
                float(np.mean(tokens)),
                standard_error(np.array(tokens)),
                float(worth.mean()),
                standard_error(worth),
                float(best - worth.mean()),
                float(over.mean()),
                standard_error(over),
            )
        )
    return found


def best_worth_seeing_changes(
    population: Population,
    random: np.random.Generator,
    rounds: int,
    value: float,
    price: float,
    questions: int = 400_000,
) -> float:
    """Worth of the best rule that sees which revisions changed the answer.

    Every sequence of changes is a node of a tree; P(right | node) is its share of right answers in
    one half of the simulated questions, from which backward induction finds the rule, and the other
    half says what that is worth. So the result is, but for Monte Carlo error, at most the optimum,
    and below it by no more than what rare nodes are judged wrongly.

    Raises InputError for so many rounds that nodes would be rare.
    """
    if 2**rounds > _MOST_NODES:
        raise InputError(f"rounds is {rounds}; give at most {_MOST_NODES.bit_length() - 1}")
    halves = [simulate_pool(population, random, questions // 2, rounds) for _ in range(2)]
    nodes = [_nodes(pool) for pool in halves]
    cost = price * halves[0].uncached[0]
    stop_here: list[np.ndarray] = []
    best = np.zeros(0)
    for k in range(rounds, -1, -1):
        node, pool = nodes[0][:, k], halves[0]
        count = np.bincount(node, minlength=2**k)
        right = np.bincount(node, weights=pool.right[:, k], minlength=2**k)
        now = value * right / np.maximum(count, 1)
        if k == rounds:
            later = np.full(2**k, -np.inf)
        else:
            follow = np.bincount(nodes[0][:, k + 1], minlength=2 ** (k + 1)).reshape(-1, 2)
            share = follow / np.maximum(follow.sum(axis=1, keepdims=True), 1)
            later = (share * best.reshape(-1, 2)).sum(axis=1) - cost[k + 1]
        stop_here.append(now >= later)
        best = np.maximum(now, later)
    stop_here.reverse()
    stops = np.stack([stop_here[k][nodes[1][:, k]] for k in range(rounds + 1)], axis=1)
    at = stops.argmax(axis=1)
    question = np.arange(len(at))
    spent = np.cumsum(cost)
    return float((value * halves[1].correct[question, at] - spent[at]).mean())


def _nodes(pool: Runs) -> Int[np.ndarray, "question answer"]:
    """Number of the node in which each question is after every answer; children 2 i and 2 i + 1."""
    changed = pool.answers[:, 1:] != pool.answers[:, :-1]
    nodes = np.zeros(pool.answers.shape, dtype=np.int64)
    for k in range(changed.shape[1]):
        nodes[:, k + 1] = 2 * nodes[:, k] + changed[:, k]
    return nodes


def plan_from_pilots(
    chains: TwoStateChain,
    key: PRNGKeyArray,
    *,
    questions: int,
    pilot_rounds: int = 3,
    horizon: int = 10,
    cost: float = 0.02,
    confidence: float = 0.9,
    draws: int = 1000,
) -> PilotStudy:
    """Plug-in, posterior-aware and risk-averse numbers of rounds from one pilot per true chain.

    Each pilot has `questions` questions of one true chain with `pilot_rounds` rounds. Uniform
    priors; the plug-in rule takes the posterior means. Worth is in units of a correct answer,
    p_N - cost N, exactly, with p_N the true accuracy.

    Args:
        chains: true chains, shape [pilot]; drawn from the uniform prior they make the
            posterior-aware rule the best there is on average.
    """
    random = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    pilots = chains.shape[0]
    true = np.asarray(accuracy_curve(chains, horizon), dtype=float)
    net = true - cost * np.arange(horizon + 1)
    n = {name: np.zeros(pilots, dtype=int) for name in ("plug_in", "posterior", "risk_averse")}
    expected = np.zeros(pilots)

    @partial(jax.jit, static_argnums=1)
    def plan(rates: Float[Array, "3 draw"], confidence: float | None = None) -> RoundPlan:
        curve = accuracy_curve(TwoStateChain(*rates), horizon)
        return plan_rounds(curve, np.ones(horizon), price=cost, confidence=confidence)

    for i in range(pilots):
        rates = [np.full(questions, float(x[i])) for x in (chains.p0, chains.p_ic, chains.p_ci)]
        states = _follow(random, rates[0], rates[1], rates[2], pilot_rounds)
        before, after = states[:, :-1], states[:, 1:]
        cases = np.array(
            [
                [states[:, 0].sum(), (~states[:, 0]).sum()],
                [(~before & after).sum(), (~before & ~after).sum()],
                [(before & ~after).sum(), (before & after).sum()],
            ]
        )
        yes, no = 1.0 + cases.T[..., None]
        sampled = random.beta(yes, no, (3, draws)).astype(np.float32)
        averaged = plan(sampled)
        n["posterior"][i] = averaged.optimal_rounds
        n["plug_in"][i] = plan((yes / (yes + no)).astype(np.float32)).optimal_rounds
        n["risk_averse"][i] = plan(sampled, confidence).optimal_rounds
        net_value = np.asarray(averaged.net_value)
        expected[i] = net_value.max() - net_value[n["plug_in"][i]]
    worth = {name: net[np.arange(pilots), rounds] for name, rounds in n.items()}
    advantage = worth["posterior"] - worth["plug_in"]
    went_on = n["risk_averse"] > 0
    return PilotStudy(
        questions,
        float(worth["plug_in"].mean()),
        float(worth["posterior"].mean()),
        float(advantage.mean()),
        float(advantage.std(ddof=1) / np.sqrt(pilots)),
        float(expected.mean()),
        float((went_on & (worth["risk_averse"] < net[:, 0])).mean()),
    )
