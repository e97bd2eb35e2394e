"""Claims on loops with a judge: H1 to H5.

Simulated loops that are alike (still going on, and right or wrong) are thinned at once.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key
from scipy import stats

from msjax.simulation.enumeration import all_paths, path_distribution
from msjax.theory import judge as theory
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
)
