"""Claims on loops with a judge: H1 to H6 and H8.

Simulated loops that are alike (still going on, and right or wrong) are thinned at once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key
from scipy import stats

from msjax.rules import belief as rules
from msjax.rules.protocol import Observation
from msjax.simulation.enumeration import all_paths, path_distribution
from msjax.theory import judge as theory
from msjax.theory import judge_control
from msjax.theory.chain import UNBOUNDED, TwoStateChain
from msjax.theory.judge import Judge, LoopOutcome
from msjax.theory.population import Population
from msjax.verify.claim import Claim, Laboratory
from msjax.verify.evidence import Evidence, join, of_counts, of_means
from msjax.verify.sampling import generator

__all__ = ["CLAIMS", "judged_runs", "loops", "voted"]

Values = Float[np.ndarray, "..."]
Paths = Bool[np.ndarray, "paths answers"]

LoopSetting = tuple[float, float, float, float, float]
"""(p0, p_ic, p_ci, accept_right, accept_wrong)."""

SampleSetting = tuple[float, float, float]
"""(p0, accept_right, accept_wrong)."""

BenchmarkSetting = tuple[tuple[float, ...], ...]
"""Questions: (p0, p_ic, p_ci, accept_right, accept_wrong, weight)."""

ControlSetting = tuple[float, float, float, float, float, float, float, float]
"""(p0, p_ic, p_ci, accept_right, accept_wrong, cost of a verdict, a revision, a fresh answer)."""

VoteSetting = tuple[float, float, int, int]
"""(P(a vote accepts), correlation, votes, threshold)."""

CAP = 4
"""Most revisions; loops with caps of 0 to so many are looked at."""
_ROUNDS = 1000
"""Rounds after which no loop of `ENDING` goes on."""

LOOPS: tuple[LoopSetting, ...] = (
    (0.3, 0.2, 0.15, 0.7, 0.1),
    (0.077, 0.053, 0.812, 0.327, 0.044),  # revising hurts, and the loop helps
    (0.4, 0.7, 0.8, 0.5, 0.5),  # r = -.5, and the judge tells nothing
    (0.2, 0.25, 0.75, 0.9, 0.3),  # r = 0
    (0.5, 0.3, 0.1, 1.0, 0.0),  # never errs
    (0.5, 0.3, 0.1, 0.2, 0.6),  # worse than a coin
    (0.35, 0.0, 0.0, 0.4, 0.2),  # frozen
    (0.3, 0.3, 0.2, 1.0, 1.0),  # accepts everything
    (0.3, 1.0, 1.0, 0.0, 0.0),  # accepts nothing, of answers that alternate
    (1.0, 0.3, 0.2, 0.5, 0.1),
)
ENDING: tuple[LoopSetting, ...] = (*LOOPS[:8], LOOPS[9])
CONTROLS: tuple[ControlSetting, ...] = (  # whose beliefs are points of the grid, or never pay
    (0.25, 0.25, 0.25, 0.75, 0.25, 0.01, 0.03, 0.05),
    (0.5, 0.25, 0.25, 0.5, 0.0, 0.01, 0.02, 0.05),
    (0.25, 0.25, 0.25, 1.0, 0.5, 0.01, 0.03, float("inf")),
    (0.25, 0.25, 0.125, 1.0, 0.0, 0.01, 0.03, 0.02),  # never errs
    (0.25, 0.5, 0.125, 0.5, 0.5, 0.01, 0.03, 0.05),  # tells nothing
)
ACTIONS = 3
"""Most actions of a loop that is controlled."""
SAMPLES: tuple[SampleSetting, ...] = (
    (0.3, 0.7, 0.1),
    (0.077, 0.327, 0.044),
    (0.5, 1.0, 0.0),
    (0.5, 0.4, 0.4),
    (0.9, 0.1, 0.8),
)
BENCHMARKS: tuple[BenchmarkSetting, ...] = (
    (
        (0.8, 0.4, 0.05, 0.9, 0.3, 0.5),
        (0.05, 0.02, 0.6, 0.3, 0.05, 0.3),
        (0.0, 0.0, 0.2, 0.4, 0.1, 0.2),
    ),
    (
        (0.2, 0.3, 0.1, 0.5, 0.5, 0.25),
        (0.5, 0.6, 0.7, 1.0, 0.0, 0.5),
        (0.6, 0.1, 0.3, 0.2, 0.7, 0.25),
    ),
)
VOTES: tuple[VoteSetting, ...] = (
    (0.7, 0.0, 5, 3),
    (0.1, 0.3, 5, 1),
    (0.6, 0.9, 3, 3),
    (0.35, 1.0, 4, 2),
    (0.0, 0.5, 3, 1),
)


def loops(
    key: Key[Array, ""], laboratory: Laboratory, setting: LoopSetting
) -> Int[np.ndarray, "round 4"]:
    """Loops that end in every round, and that go on: accepted right and wrong, unaccepted alike.

    The last two columns are of the loops in which the judge has accepted nothing by then.
    """
    return _thin(generator(key), laboratory.n_ensemble, setting)


def _thin(
    rng: np.random.Generator, n: int, setting: tuple[float, ...], rounds: int = CAP
) -> Int[np.ndarray, "round 4"]:
    p0, p_ic, p_ci, s, f = setting
    right = rng.binomial(n, p0)
    wrong = n - right
    found = []
    for _ in range(rounds + 1):
        accepted = rng.binomial([right, wrong], [s, f])
        right, wrong = np.array([right, wrong]) - accepted
        found.append([*accepted, right, wrong])
        repaired, broken = rng.binomial([wrong, right], [p_ic, p_ci])
        right, wrong = right + repaired - broken, wrong - repaired + broken
    return np.array(found)


def benchmark_loops(
    key: Key[Array, ""], laboratory: Laboratory, benchmark: BenchmarkSetting
) -> Int[np.ndarray, "round 4"]:
    """`loops` over questions drawn by their weight."""
    rng = generator(key)
    each = rng.multinomial(laboratory.n_ensemble, [question[-1] for question in benchmark])
    return np.sum(
        [_thin(rng, n, q[:-1]) for n, q in zip(each.tolist(), benchmark, strict=True)], axis=0
    )


def judged_runs(
    key: Key[Array, ""], laboratory: Laboratory, setting: LoopSetting
) -> Int[np.ndarray, "2 verdicts"]:
    """Wrong and right runs by the verdicts on all their answers, as `all_paths` lists them."""
    p0, p_ic, p_ci, s, f = setting
    rng = generator(key)
    right = rng.binomial(np.array([laboratory.n_ensemble]), p0)
    wrong = laboratory.n_ensemble - right
    for answer in range(CAP):
        if answer:
            repaired, broken = rng.binomial(wrong, p_ic), rng.binomial(right, p_ci)
            right, wrong = right + repaired - broken, wrong - repaired + broken
        yes, no = rng.binomial(right, s), rng.binomial(wrong, f)
        right = np.concatenate([right - yes, yes])
        wrong = np.concatenate([wrong - no, no])
    return np.stack([wrong, right])


def voted(key: Key[Array, ""], laboratory: Laboratory, setting: VoteSetting) -> int:
    """Answers that enough verdicts accept, each answer with a rate of its own."""
    p, rho, votes, threshold = setting
    rng, n = generator(key), laboratory.n_chains
    if rho in (0, 1) or p in (0, 1):
        rate = np.full(n, p) if rho < 1 else (rng.random(n) < p).astype(float)
    else:
        rate = rng.beta(p * (1 - rho) / rho, (1 - p) * (1 - rho) / rho, n)
    return int((rng.binomial(votes, rate) >= threshold).sum())


def _of(setting: Any) -> tuple[TwoStateChain, Judge]:
    return TwoStateChain(*setting[:3]), Judge(*setting[3:5])


def _outcomes(setting: Any) -> ArrayLike:
    """The four ends, then the judge's calls, at caps 0..CAP each."""
    return _stacked(theory.until_accepted(*_of(setting), np.arange(CAP + 1)))


def _stacked(outcome: LoopOutcome) -> ArrayLike:
    return jnp.stack([*outcome, outcome.accuracy])


def _enumerated(setting: LoopSetting, answers: int = CAP + 1) -> tuple[Values, Paths, Paths]:
    """Every path of answers with every sequence of verdicts on them, and its probability."""
    p0, p_ic, p_ci, s, f = setting
    paths, verdicts = all_paths(answers), all_paths(answers)
    accepts = np.where(paths, s, f)[:, None]
    shown = np.prod(np.where(verdicts[None], accepts, 1 - accepts), axis=2)
    return path_distribution(p0, p_ic, p_ci, answers)[:, None] * shown, paths, verdicts


def _exact_outcomes(setting: LoopSetting) -> Values:
    probability, paths, verdicts = _enumerated(setting)
    found = []
    for cap in range(CAP + 1):
        within = verdicts[:, : cap + 1]
        accepted = within.any(axis=1)
        end = np.where(accepted, within.argmax(axis=1), cap)
        right = paths[:, end]
        ways = (right & accepted, ~right & accepted, right & ~accepted, ~right & ~accepted)
        ends = [np.sum(probability * way) for way in ways]
        found.append([*ends, np.sum(probability * (end + 1)), ends[0] + ends[2]])
    return np.array(found).T


def _simulated_ends(counts: Int[np.ndarray, "round 4"], n: int, predicted: Values) -> Evidence:
    """`_outcomes` against loops that were simulated."""
    accepted, going = np.cumsum(counts[:, :2], axis=0), counts[:, 2:]
    ends = np.concatenate([accepted, going], axis=1).T
    *ways, calls, accuracy = predicted.reshape(6, -1)
    # Every loop calls the judge in round 0, and in those after it if it still goes on.
    asked = np.concatenate([[n], going.sum(axis=1)[:-1]])
    lengths = [np.append(-np.diff(asked[: k + 1]), asked[k]) for k in range(len(asked))]
    means = [np.arange(1, len(x) + 1) @ x / n for x in lengths]
    squares = [np.arange(1, len(x) + 1) ** 2 @ x / n for x in lengths]
    variance = (np.array(squares) - np.square(means)) / n
    return join(
        of_counts(ends.ravel(), n, np.ravel(ways)),
        of_counts(ends[0] + ends[2], n, accuracy),
        of_means(np.array(means), calls, variance, len(asked) / n),
    )


def _simulated_outcomes(lab: Laboratory, setting: LoopSetting, predicted: Values) -> Evidence:
    return _simulated_ends(lab.run(loops, setting), lab.n_ensemble, predicted)


def _limits(setting: Any) -> ArrayLike:
    outcome = theory.until_accepted(*_of(setting), UNBOUNDED)
    return jnp.stack([outcome.accepted_right, outcome.accepted_wrong, outcome.unaccepted_right])


def _exact_limits(setting: LoopSetting) -> Values:
    """Round by round, until no loop goes on."""
    p0, p_ic, p_ci, s, f = setting
    state, accepted = np.array([1 - p0, p0]), np.zeros(2)
    move = np.array([[1 - p_ic, p_ic], [p_ci, 1 - p_ci]])
    for _ in range(_ROUNDS):
        accepted += state * (f, s)
        state = (state * (1 - f, 1 - s)) @ move
    return np.array([accepted[1], accepted[0], state[1]])


def long_loops(
    key: Key[Array, ""], laboratory: Laboratory, setting: LoopSetting
) -> Int[np.ndarray, "round 4"]:
    """`loops` that go on until every one has ended."""
    return _thin(generator(key), laboratory.n_ensemble, setting, _ROUNDS)


def _simulated_limits(lab: Laboratory, setting: LoopSetting, predicted: Values) -> Evidence:
    found = lab.run(long_loops, setting)
    ends = [*found[:, :2].sum(axis=0), found[-1, 2]]
    return of_counts(np.array(ends), lab.n_ensemble, predicted)


def _acceptances(setting: Any) -> ArrayLike:
    return theory.acceptance_pmf(*_of(setting), np.arange(CAP + 1))


def _exact_acceptances(setting: LoopSetting) -> Values:
    probability, _, verdicts = _enumerated(setting)
    first = np.where(verdicts.any(axis=1), verdicts.argmax(axis=1), -1)
    return np.array([probability[:, first == k].sum() for k in range(CAP + 1)])


def _simulated_acceptances(lab: Laboratory, setting: LoopSetting, predicted: Values) -> Evidence:
    accepted = lab.run(loops, setting)[:, :2].sum(axis=1)
    return of_counts(accepted, lab.n_ensemble, predicted)


def _independent(setting: SampleSetting) -> LoopSetting:
    p0, s, f = setting
    return p0, p0, 1 - p0, s, f


def _resampled(setting: Any) -> ArrayLike:
    """As `_outcomes`, at 1..CAP + 1 samples."""
    p0, s, f = setting
    return _stacked(theory.resample_until_accepted(p0, Judge(s, f), np.arange(1, CAP + 2)))


def _exact_resampled(setting: SampleSetting) -> Values:
    return _exact_outcomes(_independent(setting))


def _simulated_resampled(lab: Laboratory, setting: SampleSetting, predicted: Values) -> Evidence:
    return _simulated_ends(lab.run(loops, _independent(setting)), lab.n_ensemble, predicted)


def _precision(setting: Any) -> ArrayLike:
    p0, s, f = setting
    return theory.accepted_accuracy(p0, Judge(s, f))


def _exact_precision(setting: SampleSetting) -> Values:
    right, wrong, *_ = _exact_outcomes(_independent(setting))
    return (right / (right + wrong))[-1:]


def _simulated_precision(lab: Laboratory, setting: SampleSetting, predicted: Values) -> Evidence:
    right, wrong = lab.run(loops, _independent(setting))[:, :2].sum(axis=0)
    return of_counts(right, right + wrong, predicted)


def _benchmark(setting: BenchmarkSetting) -> ArrayLike:
    p0, p_ic, p_ci, s, f, weights = np.array(setting).T
    population = Population(TwoStateChain(p0, p_ic, p_ci), weights)
    means = [theory.mean_outcome(population, Judge(s, f), cap) for cap in range(CAP + 1)]
    return np.array([_stacked(mean) for mean in means]).T


def _exact_benchmark(setting: BenchmarkSetting) -> Values:
    return np.sum([q[-1] * _exact_outcomes(q[:-1]) for q in setting], axis=0)  # type: ignore[arg-type]


def _simulated_benchmark(lab: Laboratory, setting: BenchmarkSetting, predicted: Values) -> Evidence:
    return _simulated_ends(lab.run(benchmark_loops, setting), lab.n_ensemble, predicted)


def _votes(setting: Any) -> ArrayLike:
    p, rho, votes, threshold = setting
    return theory.judge_by_votes(Judge(p, 0.5), votes, threshold, rho, 0.0).accept_right


def _exact_votes(setting: VoteSetting) -> Values:
    p, rho, votes, threshold = setting
    if rho == 1 or p == 0:
        return np.array([p])
    if rho == 0:
        return np.array([stats.binom.sf(threshold - 1, votes, p)])
    shapes = p * (1 - rho) / rho, (1 - p) * (1 - rho) / rho
    return np.array([stats.betabinom.pmf(range(threshold, votes + 1), votes, *shapes).sum()])


def _simulated_votes(lab: Laboratory, setting: VoteSetting, predicted: Values) -> Evidence:
    return of_counts(lab.run(voted, setting), lab.n_chains, predicted)


def _beliefs(setting: Any) -> ArrayLike:
    """Belief in the last answer after every sequence of verdicts, NaN if it cannot be, and its
    probability.
    """
    found = theory.filter_verdicts(*_of(setting), all_paths(CAP).astype(int))
    possible = jnp.exp(found.log_likelihood)
    return jnp.concatenate([jnp.where(possible > 0, found.beliefs[:, -1], jnp.nan), possible])


def _exact_beliefs(setting: LoopSetting) -> Values:
    probability, paths, _ = _enumerated(setting, CAP)
    total = probability.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.concatenate([paths[:, -1].astype(float) @ probability / total, total])


def _simulated_beliefs(lab: Laboratory, setting: LoopSetting, predicted: Values) -> Evidence:
    wrong, right = lab.run(judged_runs, setting)
    belief, distribution = predicted.reshape(2, -1)
    seen = wrong + right > 0
    return join(
        of_counts(right[seen], (wrong + right)[seen], belief[seen]),
        of_counts(wrong + right, lab.n_ensemble, distribution),
    )


def _two_valued(setting: Any) -> ArrayLike:
    """Belief in the last answer after every sequence of scores that are 0 or 1."""
    chain, judge = _of(setting)
    rule = rules.belief_rule(chain, np.ones(CAP), rules.SignalDistribution(scores=judge), price=0.0)

    def belief(scores: Float[Array, " answers"]) -> Float[Array, ""]:
        state = rule.init()
        for score in scores:
            state, decision = rule.update(state, Observation(jnp.int32(0), score))
        return decision.belief

    return jax.vmap(belief)(jnp.asarray(all_paths(CAP).astype(float)))


def _exact_two_valued(setting: LoopSetting) -> Values:
    return np.split(_exact_beliefs(setting), 2)[0]


def _simulated_two_valued(lab: Laboratory, setting: LoopSetting, predicted: Values) -> Evidence:
    wrong, right = lab.run(judged_runs, setting)
    seen = wrong + right > 0
    return of_counts(right[seen], (wrong + right)[seen], predicted[seen])


def _controlled(setting: Any) -> ArrayLike:
    """Value of the best loop with 0..ACTIONS actions."""
    costs = judge_control.LoopCosts(*setting[5:])
    found = judge_control.best_loop(*_of(setting), 1.0, costs, ACTIONS)
    return jnp.stack([found.value_at(left, setting[0], 1, 0) for left in range(ACTIONS + 1)])


def _ways(setting: ControlSetting, joint: Values) -> list[tuple[float, list[Values]]]:
    """Cost of every action but stopping, and what it leads to.

    `joint` is a measure over [incumbent right, current right]; what follows from it is too.
    """
    p0, p_ic, p_ci, s, f, verdict, revision, restart = setting
    move = np.array([[1 - p_ic, p_ic], [p_ci, 1 - p_ci]])
    accepts = np.array([f, s])
    found = [(verdict, [joint * accepts, joint * (1 - accepts)])]
    for start in (joint, np.diag(joint.sum(axis=0))):
        found.append((revision, [start @ move]))
        if np.isfinite(restart):
            fresh = start.sum(axis=1)[:, None] * np.array([1 - p0, p0])
            found.append((restart, [fresh]))
    return found


def _best(setting: ControlSetting, joint: Values, left: int) -> tuple[float, int]:
    """Value of the best of all sequences of actions, and its first; -1 stops."""
    stop = max(joint[1].sum(), joint[:, 1].sum())
    if not left:
        return stop, -1
    mass = joint.sum()
    values = [
        sum(_best(setting, after, left - 1)[0] for after in outcomes) - cost * mass
        for cost, outcomes in _ways(setting, joint)
    ]
    best = int(np.argmax(values))
    return (values[best], best) if values[best] > stop + 1e-12 else (stop, -1)


def _exact_control(setting: ControlSetting) -> Values:
    first = np.diag([1 - setting[0], setting[0]])
    return np.array([_best(setting, first, left)[0] for left in range(ACTIONS + 1)])


def controlled(
    key: Key[Array, ""], laboratory: Laboratory, setting: ControlSetting
) -> Float[np.ndarray, "left 2"]:
    """Mean and variance of what loops earn that act as is best, with 0..ACTIONS actions."""
    rng, n, p0 = generator(key), laboratory.n_ensemble, setting[0]

    def earn(counts: np.ndarray, joint: Values, left: int, spent: float) -> np.ndarray:
        """Sums of what they earn, and of its square."""
        _, action = _best(setting, joint, left)
        if action < 0:
            shown = counts[1] if joint[1].sum() >= joint[:, 1].sum() else counts[:, 1]
            right = int(shown.sum())
            wrong = int(counts.sum()) - right
            return np.array([[1 - spent, -spent], [(1 - spent) ** 2, spent**2]]) @ [right, wrong]
        cost, outcomes = _ways(setting, joint)[action]
        if len(outcomes) == 2:
            yes = rng.binomial(counts, [setting[4], setting[3]])
            each = [yes, counts - yes]
        else:
            each = [_moved(rng, setting, counts, action)]
        return np.sum(
            [
                earn(some, outcome, left - 1, spent + cost)
                for some, outcome in zip(each, outcomes, strict=True)
            ],
            axis=0,
        )

    found = []
    for left in range(ACTIONS + 1):
        right = rng.binomial(n, p0)
        total, squares = earn(np.diag([n - right, right]), np.diag([1 - p0, p0]), left, 0.0) / n
        found.append([total, (squares - total**2) / n])
    return np.array(found)


def _moved(
    rng: np.random.Generator, setting: ControlSetting, counts: np.ndarray, action: int
) -> np.ndarray:
    """Loops by [incumbent right, current right] after a revision or a fresh answer."""
    p0, p_ic, p_ci = setting[:3]
    replaces, restarts = divmod(action - 1, 1 + np.isfinite(setting[-1]))
    start = np.diag(counts.sum(axis=0)) if replaces else counts
    if restarts:
        right = rng.binomial(start.sum(axis=1), p0)
        return np.stack([start.sum(axis=1) - right, right], axis=1)
    repaired, broken = rng.binomial(start[:, 0], p_ic), rng.binomial(start[:, 1], p_ci)
    return np.stack([start[:, 0] - repaired + broken, start[:, 1] + repaired - broken], axis=1)


def _simulated_control(lab: Laboratory, setting: ControlSetting, predicted: Values) -> Evidence:
    mean, variance = lab.run(controlled, setting).T
    largest = (1 + ACTIONS * max(x for x in setting[5:] if np.isfinite(x))) / lab.n_ensemble
    return of_means(mean, predicted, variance, largest)


def _claim(
    name: str,
    statement: str,
    settings: tuple[Any, ...],
    closed_form: Callable[..., Any],
    exact: Callable[..., Any],
    simulated: Callable[..., Any],
    compiled: bool = True,
) -> Claim:
    reference = f"docs/theory.md {name.split('.')[0]}"
    return Claim(
        name, statement, reference, settings, closed_form, exact, simulated, compiled=compiled
    )


CLAIMS: tuple[Claim, ...] = (
    _claim(
        "H1.outcome",
        "how a loop that revises until accepted, at most K times, ends: v_0 S_K D_a, v_0 M^K D_r",
        LOOPS,
        _outcomes,
        _exact_outcomes,
        _simulated_outcomes,
    ),
    _claim(
        "H1.without_cap",
        "what is accepted in the end: v_0 (I - M)^-1 D_a",
        ENDING,
        _limits,
        _exact_limits,
        _simulated_limits,
    ),
    _claim(
        "H1.round",
        "the answer of round k is accepted with probability v_0 M^k D_a 1",
        LOOPS,
        _acceptances,
        _exact_acceptances,
        _simulated_acceptances,
    ),
    _claim(
        "H2.outcome",
        "resampling until accepted is revising with p_ic = p0 and p_ci = 1 - p0",
        SAMPLES,
        _resampled,
        _exact_resampled,
        _simulated_resampled,
    ),
    _claim(
        "H2.accepted",
        "an accepted fresh answer is right with probability p0 s / (p0 s + (1 - p0) f)",
        SAMPLES,
        _precision,
        _exact_precision,
        _simulated_precision,
    ),
    _claim(
        "H3.benchmark",
        "over questions that differ the outcome is the mean of theirs",
        BENCHMARKS,
        _benchmark,
        _exact_benchmark,
        _simulated_benchmark,
        compiled=False,
    ),
    _claim(
        "H4.votes",
        "t of m correlated verdicts accept with the tail of a Beta-binomial",
        VOTES,
        _votes,
        _exact_votes,
        _simulated_votes,
    ),
    _claim(
        "H5.belief",
        "the filter's belief is the share of right answers among runs with the same verdicts",
        LOOPS,
        _beliefs,
        _exact_beliefs,
        _simulated_beliefs,
    ),
    _claim(
        "H6.best_loop",
        "no use of verdicts, revisions and fresh answers earns more than the programme says",
        CONTROLS,
        _controlled,
        _exact_control,
        _simulated_control,
    ),
    _claim(
        "H8.two_valued",
        "scores that are 0 or 1 are verdicts: the belief that two rates give is the share right",
        LOOPS[:4],
        _two_valued,
        _exact_two_valued,
        _simulated_two_valued,
    ),
)
