"""Every result on the two-state chain as a claim that Monte Carlo can refute.

A claim states what `msjax.chain` predicts about simulated paths. `run_claims` simulates each chain
of the grid once, as the matrix of chains correct at rounds j and k, and reads every claim's
estimates and their standard errors from it. Predictions come from the closed form alone and
estimates from the paths alone.

A claim fails when, were it true, data at least as far off would be rarer than its share of
`FALSE_ALARM`. That tail is exact for counts (binomial), and for means of paths it is Bernstein's
bound with the sample variance. Where paths leave no room for chance the match has to be exact.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy import stats

from msjax import chain as theory
from msjax.chain import TwoStateChain
from msjax.errors import InputError
from simulate.paths import simulate_joint_counts

__all__ = ["CLAIMS", "FALSE_ALARM", "SECTIONS", "Claim", "ClaimResult", "run_claims"]

FALSE_ALARM = 1e-6
"""Probability that a run of correct claims reports any failure at all."""

ROUNDS = 16
"""Refinement rounds simulated for every chain."""

MIN_CHAINS = 10_000
"""Fewer chains than this cannot tell the grid's effects from noise."""

_BATCH = 250_000
_EXACT = 1e-9

GRID: tuple[tuple[float, float, float], ...] = (
    # p0, p_ic, p_ci
    (0.2, 0.3, 0.1),  # beneficial
    (0.3, 0.25, 0.25),  # beneficial, half-life 1
    (0.2, 0.2, 1 - math.sqrt(0.5) - 0.2),  # beneficial, half-life 2
    (0.55, 0.02, 0.01),  # slow, r = .97
    (0.9, 0.4, 0.2),  # harmful although p_ic > p_ci
    (0.6, 0.3, 0.2),  # neutral
    (0.1, 0.7, 0.8),  # r = -.5, the first round overshoots the limit
    (0.9, 0.8, 0.8),  # r = -.6, harmful
    (0.2, 0.6, 0.4),  # r = 0, rounds are independent
    (0.0, 0.3, 0.2),  # certain to start wrong
    (1.0, 0.3, 0.2),  # certain to start right
    (0.7, 0.2, 0.0),  # right answers are kept for good
    (0.7, 0.0, 0.2),  # wrong answers are kept for good
    (0.35, 0.0, 0.0),  # frozen
    (0.3, 1.0, 1.0),  # alternating
)


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Simulated paths of one chain, as counts.

    `joint[j, k]` is the number of the `n` chains that were correct after j and after k rounds.
    """

    chain: TwoStateChain
    n: int
    joint: Int[np.ndarray, "rounds rounds"]

    @property
    def gap(self) -> float:
        """p_ic + p_ci: 0 frozen, 1 independent rounds, 2 alternating."""
        return float(self.chain.p_ic) + float(self.chain.p_ci)

    @property
    def counts(self) -> Int[np.ndarray, "rounds"]:
        """Number of chains correct after each round."""
        return np.diag(self.joint)

    @property
    def accuracy(self) -> Float[np.ndarray, "rounds"]:
        """Fraction of chains correct after each round."""
        return self.counts / self.n

    def gain(
        self, before: Int[np.ndarray, "m"], after: Int[np.ndarray, "m"]
    ) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "m"]]:
        """Mean of X_after - X_before over chains and its variance, pairs kept together."""
        mean = self.accuracy[after] - self.accuracy[before]
        changed = self.counts[after] + self.counts[before] - 2 * self.joint[before, after]
        return mean, (changed / self.n - mean**2) / self.n


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Comparisons of prediction and estimate; `tail` bounds the chance of a worse mismatch."""

    closed_form: Float[np.ndarray, "m"]
    estimate: Float[np.ndarray, "m"]
    standard_error: Float[np.ndarray, "m"]
    tail: Float[np.ndarray, "m"]

    @property
    def z(self) -> Float[np.ndarray, "m"]:
        """Standard errors between estimate and closed form; infinite where none are allowed."""
        apart = self.estimate - self.closed_form
        apart = np.where(np.abs(apart) <= _EXACT, 0.0, apart)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(apart == 0, 0.0, apart / self.standard_error)


def _count_evidence(
    counts: Int[np.ndarray, "m"], n: int, probability: Float[np.ndarray, "m"], side: int = 0
) -> Evidence:
    """Counts claimed Binomial(n, p) with p equal to (side 0), at least (1) or at most (-1)."""
    p = np.clip(np.asarray(probability, float), 0, 1)
    p = np.where(p < _EXACT, 0.0, np.where(p > 1 - _EXACT, 1.0, p))
    few, many = stats.binom.cdf(counts, n, p), stats.binom.sf(counts - 1, n, p)
    tail = {0: np.minimum(few, many), 1: few, -1: many}[side]
    return Evidence(p, counts / n, np.sqrt(p * (1 - p) / n), np.minimum(1, 2 * tail))


def _mean_evidence(
    estimate: Float[np.ndarray, "m"],
    closed_form: Float[np.ndarray, "m"],
    variance: Float[np.ndarray, "m"],
    largest: float,
    side: int = 0,
) -> Evidence:
    """Sums of independent terms, none off its mean by more than `largest` (Bernstein's bound)."""
    variance = np.maximum(variance, 0.0)
    apart = estimate - closed_form
    off = {0: np.abs(apart), 1: np.maximum(-apart, 0), -1: np.maximum(apart, 0)}[side]
    chance = variance + largest * off / 3
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = np.minimum(1, 2 * np.exp(-(off**2) / (2 * chance)))
    exact = np.where(off <= _EXACT, 1.0, 0.0)
    tail = np.where(variance > 0, bound, exact)
    return Evidence(closed_form, estimate, np.sqrt(variance), tail)


def _join(*parts: Evidence) -> Evidence | None:
    """All comparisons of `parts` as one, or None if there are none."""
    if not parts:
        return None
    names = [field.name for field in dataclasses.fields(Evidence)]
    return Evidence(*(np.concatenate([np.atleast_1d(getattr(p, n)) for p in parts]) for n in names))


def _numbers(x: Array) -> Float[np.ndarray, "..."]:
    return np.asarray(x, float)


_K = np.arange(ROUNDS + 1)
_EARLIER, _LATER = np.triu_indices(ROUNDS + 1, k=1)


def _transient(e: Ensemble) -> Evidence | None:
    return _count_evidence(e.counts, e.n, _numbers(theory.accuracy_after(e.chain, _K)))


def _two_rounds(e: Ensemble) -> Evidence | None:
    restarted = TwoStateChain(1.0, e.chain.p_ic, e.chain.p_ci)
    both = theory.accuracy_after(e.chain, _EARLIER) * theory.accuracy_after(
        restarted, _LATER - _EARLIER
    )
    return _count_evidence(e.joint[_EARLIER, _LATER], e.n, _numbers(both))


def _regime(e: Ensemble) -> Evidence | None:
    if e.gap in (0, 2):
        return None
    sign = int(theory.regime(e.chain))
    later = _K[1:]
    gain, variance = e.gain(np.zeros_like(later), later)
    return _mean_evidence(gain, np.zeros_like(gain), variance, 2 / e.n, side=sign)


def _rates_decide(e: Ensemble) -> Evidence | None:
    if not (float(e.chain.p_ic) > float(e.chain.p_ci) and 0 < float(e.chain.p0) < 1):
        return None
    gain, variance = e.gain(np.array([0]), np.array([1]))
    return _mean_evidence(gain, np.zeros_like(gain), variance, 2 / e.n, side=1)


def _range(e: Ensemble) -> Evidence | None:
    highest, lowest = (np.atleast_1d(_numbers(b)) for b in theory.accuracy_range(e.chain))
    everywhere = np.ones(ROUNDS + 1)
    parts = [
        _count_evidence(e.counts, e.n, highest * everywhere, side=-1),
        _count_evidence(e.counts, e.n, lowest * everywhere, side=1),
    ]
    # The limit is an extreme the paths can show once what is left of the way is far below noise;
    # a frozen chain and an alternating one have no way to go.
    left = float(theory.total_variation(e.chain, ROUNDS))
    if e.gap in (0, 2) or left < 0.01 / math.sqrt(e.n):
        parts.append(_count_evidence(e.counts.max(keepdims=True), e.n, highest, side=1))
        parts.append(_count_evidence(e.counts.min(keepdims=True), e.n, lowest, side=-1))
    return _join(*parts)


def _distance(e: Ensemble) -> tuple[Float[np.ndarray, "rounds"], Float[np.ndarray, "rounds"]]:
    """Estimates of |p_k - pi| and their variances; |x - pi| moves no more than x does."""
    pi = float(theory.stationary_accuracy(e.chain))
    return np.abs(e.accuracy - pi), e.accuracy * (1 - e.accuracy) / e.n


def _rate(e: Ensemble) -> Evidence | None:
    if e.gap == 0:
        return None
    predicted = _numbers(theory.total_variation(e.chain, _K))
    distance, variance = _distance(e)
    return _mean_evidence(distance, predicted, variance, 1 / e.n)


def _mixing(e: Ensemble) -> Evidence | None:
    right, wrong = int(e.counts[0]), int(e.n - e.counts[0])
    if min(right, wrong) == 0:
        return None
    from_right, from_wrong = e.joint[0] / right, (e.counts - e.joint[0]) / wrong
    variance = from_right * (1 - from_right) / right + from_wrong * (1 - from_wrong) / wrong
    predicted = float(theory.eigenvalue(e.chain)) ** _K
    return _mean_evidence(from_right - from_wrong, predicted, variance, 1 / min(right, wrong))


def _rounds_to_within(e: Ensemble) -> Evidence | None:
    if e.gap == 0:
        return None
    distance, variance = _distance(e)
    parts = []
    for eps in (0.1, 0.03, 0.01):
        k = min(int(theory.rounds_to_within(e.chain, eps)), ROUNDS + 1)
        bound = np.full(ROUNDS + 1, eps)
        for rounds, side in ((slice(0, k), 1), (slice(k, None), -1)):
            parts.append(
                _mean_evidence(distance[rounds], bound[rounds], variance[rounds], 1 / e.n, side)
            )
    return _join(*parts)


def _half_life(e: Ensemble) -> Evidence | None:
    rounds = float(theory.half_life(e.chain))
    if not 0 < rounds <= ROUNDS or abs(rounds - round(rounds)) > _EXACT:
        return None
    halvings = np.arange(1, ROUNDS // round(rounds) + 1)
    at = halvings * round(rounds)
    distance, variance = _distance(e)
    start = abs(float(e.chain.p0) - float(theory.stationary_accuracy(e.chain)))
    return _mean_evidence(distance[at], start * 0.5**halvings, variance[at], 1 / e.n)


def _marginal_gain(e: Ensemble) -> Evidence | None:
    before = _K[:-1]
    gain, variance = e.gain(before, before + 1)
    predicted = _numbers(theory.marginal_gain(e.chain, before))
    return _mean_evidence(gain, predicted, variance, 2 / e.n)


def _stopping(e: Ensemble, best: int, spent: Float[np.ndarray, "rounds"]) -> Evidence:
    """No k is worth more than `best`, for correct answers of value 1 and given cost of k rounds."""
    gain, variance = e.gain(_K, np.full_like(_K, best))
    margin = gain - (spent[best] - spent)
    return _mean_evidence(margin, np.zeros_like(margin), variance, 2 / e.n, side=1)


def _optimal_rounds(e: Ensemble) -> Evidence | None:
    parts = []
    for cost in (0.0, 0.005, 0.02, 0.07, 0.3):
        best = min(int(theory.optimal_rounds(e.chain, 1.0, cost)), ROUNDS)
        parts.append(_stopping(e, best, cost * _K))
    return _join(*parts)


def _optimal_rounds_with_costs(e: Ensemble) -> Evidence | None:
    parts = []
    for costs in (0.01 * 1.3 ** _K[:-1], np.where(_K[:-1] == 0, 0.25, 0.0)):
        best = int(theory.optimal_rounds_with_costs(e.chain, 1.0, costs))
        parts.append(_stopping(e, best, np.concatenate([[0.0], np.cumsum(costs)])))
    return _join(*parts)


def _frozen(e: Ensemble) -> Evidence | None:
    if e.gap != 0:
        return None
    moved = (e.counts[0] + e.counts - 2 * e.joint[0]) / e.n
    return _mean_evidence(moved, np.zeros_like(moved), np.zeros_like(moved), 1 / e.n)


def _alternating(e: Ensemble) -> Evidence | None:
    if e.gap != 2:
        return None
    # Right at both of two rounds of different parity: impossible. Of the same parity: as at one.
    odd = (_LATER - _EARLIER) % 2 == 1
    expected = np.where(odd, 0, e.counts[_EARLIER]) / e.n
    found = e.joint[_EARLIER, _LATER] / e.n
    return _mean_evidence(found, expected, np.zeros_like(found), 1 / e.n)


def _independent(e: Ensemble) -> Evidence | None:
    if e.gap != 1:
        return None
    accuracy = np.where(_K == 0, float(e.chain.p0), float(theory.stationary_accuracy(e.chain)))
    return _count_evidence(e.joint[_EARLIER, _LATER], e.n, accuracy[_EARLIER] * accuracy[_LATER])


def _certain_start(e: Ensemble) -> Evidence | None:
    if float(e.chain.p0) not in (0.0, 1.0):
        return None
    return _count_evidence(e.counts[:1], e.n, np.array([float(e.chain.p0)]))


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement, where it comes from, and how paths of a chain bear on it.

    `evidence` returns None for chains the statement does not speak about. With `holds` false the
    statement is a known error, and the check is that simulation refutes it.
    """

    id: str
    statement: str
    reference: str
    evidence: Callable[[Ensemble], Evidence | None]
    holds: bool = True

    @property
    def section(self) -> str:
        """The section of docs/theory.md that makes the claim."""
        return self.id.split(".")[0]


_TRANSIENT = "arXiv 2602.01120 (transient), arXiv 2508.16456"
_REGIME = "arXiv 2602.01120 Theorem 3.1 (interpretation)"

CLAIMS: tuple[Claim, ...] = (
    Claim("A1.transient", "p_k = pi + r^k (p0 - pi)", _TRANSIENT, _transient),
    Claim(
        "A1.two_rounds",
        "P(right at j and at k) = p_j (pi + r^(k-j) (1 - pi))",
        "docs/theory.md A1",
        _two_rounds,
    ),
    Claim("A2.regime", "p_k - p0 has the sign of p_ic (1-p0) - p_ci p0", _REGIME, _regime),
    Claim(
        "A2.rates_decide", "p_ic > p_ci means that refinement helps", _REGIME, _rates_decide, False
    ),
    Claim("A3.range", "max and min of p_k are those of p0, p_1, pi", "docs/theory.md A3", _range),
    Claim("A4.rate", "|p_k - pi| = |r|^k |p0 - pi|", "docs/theory.md A4", _rate),
    Claim("A4.mixing", "P(C at k | C) - P(C at k | I) = r^k", "docs/theory.md A4", _mixing),
    Claim(
        "A4.rounds_to_within",
        "|p_k - pi| <= eps from k = ceil(log(eps / |p0-pi|) / log|r|) on, not before",
        "docs/theory.md A4",
        _rounds_to_within,
    ),
    Claim(
        "A4.half_life",
        "|p_k - pi| halves every log 2 / -log|r| rounds",
        "docs/theory.md A4",
        _half_life,
    ),
    Claim(
        "A5.marginal_gain",
        "p_(k+1) - p_k = r^k (p_ic (1-p0) - p_ci p0)",
        _TRANSIENT,
        _marginal_gain,
    ),
    Claim("A6.optimal_rounds", "V p_k - c k is largest at N*", _REGIME, _optimal_rounds),
    Claim(
        "A6.round_costs",
        "V p_k - (c_1 + ... + c_k) is largest at the general argmax",
        "docs/theory.md A6",
        _optimal_rounds_with_costs,
    ),
    Claim("A10.frozen", "p_ic = p_ci = 0 never moves", "docs/theory.md A10", _frozen),
    Claim("A10.alternating", "p_ic = p_ci = 1 alternates", "docs/theory.md A10", _alternating),
    Claim(
        "A10.independent",
        "p_ic + p_ci = 1 makes rounds independent",
        "docs/theory.md A10",
        _independent,
    ),
    Claim(
        "A10.certain_start",
        "p0 in {0, 1} starts without chance",
        "docs/theory.md A10",
        _certain_start,
    ),
)

SECTIONS: tuple[str, ...] = tuple(dict.fromkeys(claim.section for claim in CLAIMS))


@dataclasses.dataclass(frozen=True)
class ClaimResult:
    """Outcome of one claim; the numbers are those of its worst comparison.

    Attributes:
        id, section, statement, reference: as in the claim.
        closed_form, estimate, standard_error: prediction, Monte Carlo estimate and its error;
            where the claim is an order (A2, A6) the prediction is the bound it sets.
        z: (estimate - closed_form) / standard_error.
        threshold: the |z| at which a normal estimate would fail, given all comparisons made.
        ok: whether the claim stands, or for a known error whether it was refuted.
        holds: false for a known error.
        chain: (p0, p_ic, p_ci) of the worst comparison.
        points: number of chains of the grid that the claim was checked on.
        comparisons: number of comparisons over those chains.
    """

    id: str
    section: str
    statement: str
    reference: str
    closed_form: float
    estimate: float
    standard_error: float
    z: float
    threshold: float
    ok: bool
    holds: bool
    chain: tuple[float, float, float]
    points: int
    comparisons: int


def run_claims(
    key: Key[Array, ""], n_chains: int = 1_000_000, section: str | None = None
) -> list[ClaimResult]:
    """Check the claims of docs/theory.md on simulated chains.

    The tail allowed to each comparison is `FALSE_ALARM` / (number of comparisons).

    Args:
        key: typed random key, consumed.
        n_chains: chains simulated per point of the grid, at least `MIN_CHAINS`.
        section: only the claims of this section, such as "A4".

    Returns: one result per claim, in the order of the theory.

    Raises:
        InputError: too few chains, or an unknown section.

    Reference: docs/theory.md, table of claims.
    """
    if section is not None and section not in SECTIONS:
        raise InputError(f"section is {section!r}; choose one of {', '.join(SECTIONS)}")
    if n_chains < MIN_CHAINS:
        raise InputError(f"n_chains is {n_chains}; give at least {MIN_CHAINS}")
    claims = [claim for claim in CLAIMS if section in (None, claim.section)]
    # Closed forms in float64, so that their rounding stays far below the Monte Carlo error.
    with jax.enable_x64(True):
        ensembles = [
            _simulate(point_key, TwoStateChain(*point), n_chains)
            for point_key, point in zip(jax.random.split(key, len(GRID)), GRID, strict=True)
        ]
        found = [[claim.evidence(e) for e in ensembles] for claim in claims]
    total = sum(e.tail.size for row in found for e in row if e is not None)
    return [_judge(claim, row, total) for claim, row in zip(claims, found, strict=True)]


def _simulate(key: Key[Array, ""], chain: TwoStateChain, n_chains: int) -> Ensemble:
    """Joint counts of `n_chains` paths, in batches that bound the memory."""
    joint = np.zeros((ROUNDS + 1, ROUNDS + 1), np.int64)
    starts = range(0, n_chains, _BATCH)
    for batch_key, start in zip(jax.random.split(key, len(starts)), starts, strict=True):
        size = min(_BATCH, n_chains - start)
        joint += np.asarray(simulate_joint_counts(batch_key, chain, size, ROUNDS))
    return Ensemble(chain, n_chains, joint)


def _judge(claim: Claim, found: list[Evidence | None], total: int) -> ClaimResult:
    """The verdict on one claim from its evidence on every chain of the grid."""
    seen = [(point, e) for point, e in zip(GRID, found, strict=True) if e is not None]
    evidence = _join(*(e for _, e in seen))
    assert evidence is not None, f"no chain of the grid bears on {claim.id}"
    points = [point for point, e in seen for _ in range(e.tail.size)]
    # Among equal tails: the closest call if all are fine, the grossest mismatch if all are not.
    distance = np.where(evidence.tail < 1, -np.abs(evidence.z), np.abs(evidence.z))
    worst = int(np.lexsort((distance, evidence.tail))[0])
    stands = bool(evidence.tail[worst] >= FALSE_ALARM / total)
    return ClaimResult(
        id=claim.id,
        section=claim.section,
        statement=claim.statement,
        reference=claim.reference,
        closed_form=float(evidence.closed_form[worst]),
        estimate=float(evidence.estimate[worst]),
        standard_error=float(evidence.standard_error[worst]),
        z=float(evidence.z[worst]),
        threshold=float(stats.norm.isf(FALSE_ALARM / total / 2)),
        ok=stands == claim.holds,
        holds=claim.holds,
        chain=points[worst],
        points=len(seen),
        comparisons=evidence.tail.size,
    )
