"""Claims on sequential voting: sections E1 to E6."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key
from scipy import integrate, special

from msjax.rules.audit import stop_distribution
from msjax.rules.votes import first_answer_certificate
from msjax.theory import voting as theory
from msjax.verify.claim import Claim, Laboratory
from msjax.verify.evidence import Evidence, join, of_counts, of_means
from msjax.verify.sampling import generator

__all__ = ["CLAIMS"]

RateSetting = tuple[Any, Any]
"""(p_right, p_wrong) for three classes, p_right + 2 p_wrong = 1."""

VoteSetting = tuple[Any, Any, Any, int, int]
"""(P(right), P(one wrong class), P(the other), margin, max_votes)."""

WaldSetting = tuple[Any, int]
"""(p_right, margin) for two classes and no budget."""

RATES: tuple[RateSetting, ...] = ((0.6, 0.2), (0.5, 0.25), (0.4, 0.3))
VOTES: tuple[VoteSetting, ...] = (
    (0.6, 0.4, 0.0, 3, 15),
    (0.4, 0.35, 0.25, 3, 15),
    (0.5, 0.5, 0.0, 3, 15),  # votes without evidence
    (0.5, 0.3, 0.2, 2, 10),
    (0.2, 0.8, 0.0, 2, 10),  # the crowd is wrong
    (1.0, 0.0, 0.0, 2, 10),  # unanimous
)
WALD: tuple[WaldSetting, ...] = ((0.7, 3), (0.55, 4), (0.5, 3), (0.3, 2), (1.0, 5), (0.0, 2))

CERTIFICATES: tuple[tuple[Any, bool], ...] = ((0.05, True), (0.05, False), (0.2, True))
"""(delta, predictive): whether past factors of the process stay as they were."""

_WITHIN = np.array([4, 8, 16, 32])
"""Votes within which a certificate is given, or not."""

_CAST = 8  # votes of a stream
_LONGEST = max(setting[-1] for setting in VOTES)
_THRESHOLDS = ("2", "5", "20")
_PATTERNS = np.array(
    [
        (a, b, _CAST - a - b)
        for a in range(_CAST, 0, -1)
        for b in range(min(a - 1, _CAST - a), -1, -1)
        if b > _CAST - a - b
    ]
    + [(_CAST, 0, 0)]
)

Values = Float[np.ndarray, "..."]


class Streams(NamedTuple):
    """Vote streams of three classes, of which a random one is right, by sorted votes.

    Attributes:
        leader_right, runner_up_right: how often the class with most votes, and with second most,
            is the right one, for streams with `[first, second]` votes; ties are left out.
        seen: how many streams have those votes.
    """

    leader_right: Int[np.ndarray, "first second"]
    runner_up_right: Int[np.ndarray, "first second"]
    seen: Int[np.ndarray, "first second"]


def streams(key: Key[Array, ""], laboratory: Laboratory, p_right: float, p_wrong: float) -> Streams:
    """Eight votes per stream; classes are exchangeable, so the sorted votes tell everything."""
    votes = generator(key).multinomial(_CAST, [p_right, p_wrong, p_wrong], laboratory.n_chains)
    first, second = np.sort(votes, axis=1)[:, :0:-1].T
    decided = (first > second) & (second > _CAST - first - second)
    alone = (first == _CAST) & (second == 0)
    right = votes[:, 0]

    def table(chosen: np.ndarray) -> Int[np.ndarray, "first second"]:
        counts = np.zeros((_CAST + 1, _CAST + 1), np.int64)
        np.add.at(counts, (first[chosen], second[chosen]), 1)
        return counts

    kept = decided | alone
    return Streams(table(kept & (right == first)), table(decided & (right == second)), table(kept))


class Outcomes(NamedTuple):
    """Sums over simulated votes: those cast, their squares, wrong answers and squares."""

    votes: float
    votes_squared: float
    wrong: float
    wrong_squared: float


def outcomes(
    key: Key[Array, ""],
    laboratory: Laboratory,
    p_right: float,
    p_first: float,
    p_second: float,
    margin: int,
    max_votes: int,
) -> Outcomes:
    """Votes that stop at a margin or at the budget; tied leaders are chosen with equal shares."""
    distribution = jnp.array([p_right, p_first, p_second])
    return Outcomes(*map(float, _vote(key, distribution, margin, max_votes, laboratory.n_chains)))


@partial(jax.jit, static_argnames="n")
def _vote(
    key: Key[Array, ""],
    distribution: Float[Array, "3"],
    margin: Int[ArrayLike, ""],
    max_votes: Int[ArrayLike, ""],
    n: int,
) -> Outcomes:
    limits = jnp.cumsum(distribution)[:-1]

    def cast(
        carry: tuple[Int[Array, "3 n"], Int[Array, "n"]], vote_key: Key[Array, ""]
    ) -> tuple[tuple[Int[Array, "3 n"], Int[Array, "n"]], None]:
        votes, total = carry
        first, last = jnp.max(votes, axis=0), jnp.min(votes, axis=0)
        second = total - first - last
        going = (first - second < margin) & (total < max_votes)
        uniform = jax.random.uniform(vote_key, (n,), distribution.dtype)
        choice = (uniform >= limits[0]).astype(jnp.int32) + (uniform >= limits[1])
        vote = (choice[None] == jnp.arange(3)[:, None]) & going[None]
        return (votes + vote, total + going), None

    start = (jnp.zeros((3, n), jnp.int32), jnp.zeros(n, jnp.int32))
    (votes, total), _ = jax.lax.scan(cast, start, jax.random.split(key, _LONGEST))
    leads = votes == jnp.max(votes, axis=0, keepdims=True)
    wrong = 1 - leads[0] / jnp.sum(leads, axis=0)
    spent = total.astype(distribution.dtype)
    return Outcomes(jnp.sum(spent), jnp.sum(spent**2), jnp.sum(wrong), jnp.sum(wrong**2))  # type: ignore[arg-type]


def walks(
    key: Key[Array, ""], laboratory: Laboratory, p_right: float, margin: int
) -> tuple[Int[np.ndarray, "walks"], int]:
    """Two classes without a budget: votes of each walk, and how many end at the wrong one."""
    rng, n = generator(key), laboratory.n_chains
    lead, going, votes, wrong = np.zeros(n, np.int64), np.arange(n), np.zeros(n, np.int64), 0
    while going.size:
        lead = lead + np.where(rng.random(going.size) < p_right, 1, -1)
        votes[going] += 1
        wrong += int((lead == -margin).sum())
        inside = np.abs(lead) < margin
        lead, going = lead[inside], going[inside]
    return votes, wrong


def _likelihoods(setting: RateSetting, votes: Int[np.ndarray, "classes"]) -> list[Fraction]:
    """P(votes in this order | class j is right), for each j."""
    right, wrong = (Fraction(str(rate)) for rate in setting)
    total = int(votes.sum())
    return [right ** int(v) * wrong ** (total - int(v)) for v in votes]


def _bayes_factors(setting: RateSetting) -> ArrayLike:
    return theory.log_bayes_factor(_PATTERNS, *setting)


def _exact_bayes_factors(setting: RateSetting) -> Values:
    found = [_likelihoods(setting, votes) for votes in _PATTERNS]
    return np.array([math.log(likelihood[0] / likelihood[1]) for likelihood in found])


def _simulated_bayes_factors(lab: Laboratory, setting: RateSetting, predicted: Values) -> Evidence:
    found, at = lab.run(streams, *setting), tuple(_PATTERNS[:-1, :2].T)
    either = found.leader_right[at] + found.runner_up_right[at]
    share = 1 / (1 + np.exp(-predicted[:-1]))
    return of_counts(found.leader_right[at][either > 0], either[either > 0], share[either > 0])


def _posteriors(setting: RateSetting) -> ArrayLike:
    return theory.leader_posterior(_PATTERNS, *setting)


def _exact_posteriors(setting: RateSetting) -> Values:
    found = [_likelihoods(setting, votes) for votes in _PATTERNS]
    return np.array([float(likelihood[0] / sum(likelihood)) for likelihood in found])


def _simulated_posteriors(lab: Laboratory, setting: RateSetting, predicted: Values) -> Evidence:
    found, at = lab.run(streams, *setting), tuple(_PATTERNS[:, :2].T)
    seen = found.seen[at] > 0
    return of_counts(found.leader_right[at][seen], found.seen[at][seen], predicted[seen])


def _margins(setting: RateSetting) -> ArrayLike:
    return theory.margin_needed(np.array([float(t) for t in _THRESHOLDS]), *setting)


def _exact_margins(setting: RateSetting) -> Values:
    right, wrong = (Fraction(str(rate)) for rate in setting)
    found = []
    for threshold in _THRESHOLDS:
        margin = 0
        while (right / wrong) ** margin < Fraction(threshold):
            margin += 1
        found.append(margin)
    return np.array(found, float)


def _simulated_margins(lab: Laboratory, setting: RateSetting, predicted: Values) -> Evidence:
    """Odds of the leader against the runner-up, over all streams with a given margin."""
    found = lab.run(streams, *setting)
    margins = np.subtract.outer(np.arange(_CAST + 1), np.arange(_CAST + 1))
    parts = []
    for threshold, needed in zip(_THRESHOLDS, np.round(predicted), strict=True):
        share = float(threshold) / (1 + float(threshold))
        for margin, side in ((needed, 1), (needed - 1, -1)):
            leader = int(found.leader_right[margins == margin].sum())
            either = leader + int(found.runner_up_right[margins == margin].sum())
            if either:
                parts.append(of_counts(leader, either, share, side))
    return join(*parts)


def _distribution(setting: VoteSetting) -> theory.VotesDistribution:
    *distribution, margin, max_votes = setting
    return theory.votes_distribution(
        jnp.stack([jnp.asarray(p) for p in distribution]), margin, max_votes
    )


def _all_votes(setting: VoteSetting) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every vote vector at which voting ends, with its probability, vote by vote."""
    *distribution, margin, max_votes = setting
    going = {(0,) * len(distribution): 1.0}
    for cast in range(1, max_votes + 1):
        after: dict[tuple[int, ...], float] = defaultdict(float)
        for votes, mass in going.items():
            for j, p in enumerate(distribution):
                after[(*votes[:j], votes[j] + 1, *votes[j + 1 :])] += mass * p
        going = {}
        for votes, mass in after.items():
            first, second = sorted(votes)[:-3:-1]
            if first - second >= margin or cast == max_votes:
                yield votes, mass
            else:
                going[votes] = mass


def _error(votes: tuple[int, ...]) -> float:
    leaders = [j for j, v in enumerate(votes) if v == max(votes)]
    return 1 - (1 / len(leaders) if 0 in leaders else 0.0)


def _expected(value: Callable[[tuple[int, ...]], float]) -> Callable[[VoteSetting], float]:
    return lambda setting: sum(mass * value(votes) for votes, mass in _all_votes(setting))


def _simulated_error(lab: Laboratory, setting: VoteSetting, predicted: Values) -> Evidence:
    found, n = lab.run(outcomes, *setting), lab.n_chains
    mean = found.wrong / n
    return of_means(mean, predicted, (found.wrong_squared / n - mean**2) / n, 1 / n)


def _simulated_votes(lab: Laboratory, setting: VoteSetting, predicted: Values) -> Evidence:
    found, n = lab.run(outcomes, *setting), lab.n_chains
    mean = found.votes / n
    variance = (found.votes_squared / n - mean**2) / n
    return of_means(mean, predicted, variance, setting[-1] / n)


def _ruin(setting: WaldSetting) -> tuple[float, float]:
    """Error and expected votes of the walk from lead 0, by solving the equations of one step."""
    p, margin = setting
    inside = 2 * margin - 1
    step = np.diag(np.full(inside - 1, p), 1) + np.diag(np.full(inside - 1, 1 - p), -1)
    to_wrong = np.zeros(inside)
    to_wrong[0] = 1 - p
    system = np.eye(inside) - step
    wrong, votes = np.linalg.solve(system, np.stack([to_wrong, np.ones(inside)], axis=1)).T
    return float(wrong[margin - 1]), float(votes[margin - 1])


def _simulated_wald_error(lab: Laboratory, setting: WaldSetting, predicted: Values) -> Evidence:
    return of_counts(lab.run(walks, *setting)[1], lab.n_chains, predicted)


def _simulated_wald_votes(lab: Laboratory, setting: WaldSetting, predicted: Values) -> Evidence:
    votes = lab.run(walks, *setting)[0]
    # A walk may last for ever, but beyond 100 margin^2 votes it does so less often than 1e-40.
    return of_means(votes.mean(), predicted, votes.var() / votes.size, 1600 / votes.size)


def _certified(setting: tuple[Any, bool]) -> ArrayLike:
    delta, predictive = setting
    budget = int(_WITHIN[-1]) + 1  # at its budget a rule stops in any case
    rule = first_answer_certificate(budget, delta, predictive)
    return np.cumsum(stop_distribution(rule, (0.5, 0.5), budget).stopped_at)[_WITHIN - 1]


def _bets(setting: tuple[Any, bool]) -> Callable[[float, int, int, bool], float]:
    """Log of the process after a vote, from its log before, the counts before, and the vote."""

    def predictive(log: float, wins: int, losses: int, won: bool) -> float:
        return log + math.log(2 * (mean(wins, losses) if won else 1 - mean(wins, losses)))

    @cache
    def mean(wins: int, losses: int) -> float:
        """Of q ~ Beta(1/2, 1/2) cut to (1/2, 1], by q = sin(x)^2, which is uniform in x."""

        def weight(x: float, power: int) -> float:
            return math.sin(x) ** (2 * (wins + power)) * math.cos(x) ** (2 * losses)

        over, under = (
            integrate.quad(weight, math.pi / 4, math.pi / 2, (power,), epsabs=0, epsrel=1e-13)[0]
            for power in (1, 0)
        )
        return over / under

    def plug_in(_: float, wins: int, losses: int, won: bool) -> float:
        q = min(max((wins + 0.5) / (wins + losses + 1), 0.50001), 0.99999)
        wins, losses = wins + won, losses + (not won)
        return (wins + losses) * math.log(2) + wins * math.log(q) + losses * math.log(1 - q)

    return predictive if setting[1] else plug_in


def _exact_certified(setting: tuple[Any, bool]) -> Values:
    """The first vote names the candidate; every later one is for or against it."""
    bet, needed = _bets(setting), -math.log(setting[0])
    going: dict[tuple[int, int], tuple[float, float]] = {(0, 0): (0.0, 1.0)}
    certified = [0.0]
    for _ in range(int(_WITHIN[-1]) - 1):
        after: dict[tuple[int, int], tuple[float, float]] = {}
        over = 0.0
        for (wins, losses), (log, mass) in going.items():
            for won in (True, False):
                now = bet(log, wins, losses, won)
                counts = (wins + won, losses + (not won))
                if now >= needed:
                    over += mass / 2
                else:
                    after[counts] = (now, after.get(counts, (0, 0.0))[1] + mass / 2)
        going = after
        certified.append(certified[-1] + over)
    return np.array(certified)[_WITHIN - 1]


def certifications(
    key: Key[Array, ""], laboratory: Laboratory, delta: float, predictive: bool
) -> Int[np.ndarray, "samples"]:
    """Votes after which a coin's tosses certify a candidate; more than followed if never."""
    rng, n = generator(key), laboratory.n_chains
    votes = np.arange(_WITHIN[-1])
    wins, losses = np.meshgrid(votes, votes, indexing="ij")
    if predictive:
        # By incomplete Beta functions: the distribution of q is cut where it falls below 1/2.
        over, under = (
            special.beta(wins + more, losses + 0.5)
            * special.betainc(losses + 0.5, wins + more, 0.5)
            for more in (1.5, 0.5)
        )
        q = over / under
    else:
        q = np.clip((wins + 0.5) / (wins + losses + 1), 0.50001, 0.99999)
    won, product = np.zeros(n, np.int32), np.ones(n)
    never = int(_WITHIN[-1]) + 1
    when = np.full(n, never)
    for seen in range(int(_WITHIN[-1]) - 1):
        toss = np.unpackbits(np.frombuffer(rng.bytes(n // 8 + 1), np.uint8), count=n)
        # What the vote does to the product, by the wins before it and whether it is one.
        before = np.arange(seen + 1)
        now = q[before, seen - before]
        if predictive:
            product *= np.stack([2 * (1 - now), 2 * now], 1).reshape(-1)[2 * won + toss]
        else:
            of_wins = [
                (2 * now) ** (before + win) * (2 * (1 - now)) ** (seen + 1 - before - win)
                for win in (0, 1)
            ]
            product = np.stack(of_wins, 1).reshape(-1)[2 * won + toss]
        won += toss
        when = np.minimum(when, np.where(product >= 1 / delta, seen + 2, never))
    return when


def _simulated_certified(lab: Laboratory, setting: tuple[Any, bool], predicted: Values) -> Evidence:
    when = lab.run(certifications, *setting)
    return of_counts((when[:, None] <= _WITHIN).sum(0), lab.n_chains, predicted)


_OPTPO = "arXiv 2512.02882"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "E1.bayes_factor",
        "log Bayes factor of leader against runner-up = (v_L - v_S) log(p_right / p_wrong)",
        _OPTPO,
        RATES,
        _bayes_factors,
        _exact_bayes_factors,
        _simulated_bayes_factors,
    ),
    Claim(
        "E2.posterior",
        "P(leader is right | votes) = 1 / (1 + sum_j (p_wrong / p_right)^(v_L - v_j))",
        _OPTPO,
        RATES,
        _posteriors,
        _exact_posteriors,
        _simulated_posteriors,
    ),
    Claim(
        "E3.margin",
        "odds reach t from a margin of ceil(log t / log(p_right / p_wrong)) on, not before",
        _OPTPO,
        RATES,
        _margins,
        _exact_margins,
        _simulated_margins,
    ),
    Claim(
        "E4.error",
        "P(a wrong answer is returned) by lattice recursion",
        "docs/theory.md E4",
        VOTES,
        lambda setting: theory.error_probability(_distribution(setting)),
        _expected(_error),
        _simulated_error,
    ),
    Claim(
        "E4.expected_votes",
        "E[votes cast] by lattice recursion",
        "docs/theory.md E4",
        VOTES,
        lambda setting: theory.expected_votes(_distribution(setting)),
        _expected(lambda votes: float(sum(votes))),
        _simulated_votes,
    ),
    Claim(
        "E5.wald_error",
        "two classes, no budget: P(error) = 1 / (1 + (p / q)^h)",
        "Wald (1945); docs/theory.md E5",
        WALD,
        lambda setting: theory.wald_two_class(*setting).error,
        lambda setting: _ruin(setting)[0],
        _simulated_wald_error,
    ),
    Claim(
        "E5.wald_votes",
        "two classes, no budget: E[votes] = h (1 - 2 error) / (p - q)",
        "Wald (1945); docs/theory.md E5",
        WALD,
        lambda setting: theory.wald_two_class(*setting).expected_votes,
        lambda setting: _ruin(setting)[1],
        _simulated_wald_votes,
    ),
    Claim(
        "E6.certificate",
        "P(a coin certifies a candidate within t votes): predictive product, and plug-in product",
        "arXiv 2510.17472; docs/theory.md E6",
        CERTIFICATES,
        _certified,
        _exact_certified,
        _simulated_certified,
        compiled=False,
    ),
)
