"""A benchmark as a mixture of questions, each with a refinement chain of its own.

The accuracy of the benchmark after k rounds is E[p_k], the mean over questions. It is not the
accuracy of any one chain: the questions that are still wrong after k rounds are those that are
hard to repair, so the rates seen by someone who does not tell questions apart change with k.
docs/theory.md B derives what follows.

Expectations are weighted sums over the questions: exact for a benchmark whose chains are listed,
by quadrature for Beta distributions (`beta_population`), by sampling otherwise
(`sample_beta_population`).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key, Real
from scipy.linalg import eigh_tridiagonal

from msjax.errors import InputError, require
from msjax.theory.chain import (
    Regime,
    TwoStateChain,
    accuracy_after,
    accuracy_curve,
    eigenvalue,
    marginal_gain,
    regime,
    stationary_accuracy,
)

__all__ = [
    "PooledRates",
    "Population",
    "PopulationBounds",
    "beta_population",
    "beta_questions",
    "bounds",
    "bounds_after",
    "gated_accuracy_after",
    "limit_accuracy",
    "mean_accuracy_after",
    "mean_accuracy_curve",
    "pooled_chain",
    "pooled_rates",
    "population_first_gain",
    "population_regime",
    "sample_beta_population",
]


class PooledRates(NamedTuple):
    """Flip rates per round over all questions in the state they leave (probabilities)."""

    p_ic: Float[Array, "*rounds"]
    p_ci: Float[Array, "*rounds"]


class PopulationBounds(NamedTuple):
    """Accuracy of a benchmark by what decides which of its questions are refined.

    Attributes:
        upper: those that gain, so that each ends with the better of two accuracies (probability).
        neutral: all of them (probability).
        lower: those that lose, so that each ends with the worse of the two (probability).
    """

    upper: Float[Array, "*rounds"]
    neutral: Float[Array, "*rounds"]
    lower: Float[Array, "*rounds"]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class Population:
    """A benchmark: the chain of every question and the share of the benchmark it stands for.

    A frozen pytree. Concrete values are checked when it is made; traced ones are taken as they
    are.

    Args:
        chains: one chain per question, of shape [questions].
        weights: share of each question (probability), shape [questions], >= 0 with sum 1; equal
            shares when left out.

    Raises:
        InputError: chains that are not a vector of at least one question, or weights of another
            shape, negative, or with a sum that is not 1.

    Reference: docs/theory.md B1.
    """

    chains: TwoStateChain
    weights: Float[Array, "questions"]

    def __init__(
        self, chains: TwoStateChain, weights: Real[ArrayLike, "questions"] | None = None
    ) -> None:
        if len(chains.shape) != 1 or chains.shape[0] == 0:
            raise InputError(
                f"chains has shape {chains.shape}; give one chain per question, a vector"
            )
        if weights is None:
            weights = np.full(chains.shape, 1 / chains.shape[0])
        if jnp.shape(weights) != chains.shape:
            raise InputError(
                f"weights has shape {jnp.shape(weights)}, chains {chains.shape}; "
                "give one weight per question"
            )
        require("weights", weights, lambda w: (w >= 0) & (w <= 1), "a share must lie in [0, 1]")
        if not isinstance(weights, jax.core.Tracer):
            total = np.sum(np.asarray(weights), dtype=np.float64)
            require(
                "sum of weights", total, lambda s: abs(s - 1) <= 1e-5, "divide weights by their sum"
            )
        object.__setattr__(self, "chains", chains)
        object.__setattr__(self, "weights", jnp.asarray(weights, chains.dtype))

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], None]:
        """The chains and their weights as named children, for JAX."""
        names = ("chains", "weights")
        return tuple((jax.tree_util.GetAttrKey(n), getattr(self, n)) for n in names), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any, Any]) -> "Population":
        """A population of any children, for JAX, so nothing is checked."""
        population = object.__new__(cls)
        for name, child in zip(("chains", "weights"), children, strict=True):
            object.__setattr__(population, name, child)
        return population


def beta_population(
    p0: tuple[float, float],
    p_ic: tuple[float, float],
    p_ci: tuple[float, float],
    nodes: int = 16,
) -> Population:
    """The population with independent p0 ~ Beta, p_ic ~ Beta, p_ci ~ Beta, by quadrature.

    Each distribution becomes the `nodes` points and weights of its Gauss-Jacobi rule, and the
    population is their product grid of nodes^3 questions. The expectation of a polynomial whose
    degree in each single probability is at most 2 nodes - 1 is exact to rounding. Hence

        E[p_k]                          is exact for k     <= 2 nodes - 1,
        the pooled rates at round k     are exact for k + 1 <= 2 nodes - 1.

    E[pi] is a rational and E[max(p0, pi)] not even a smooth integrand: these only converge as
    `nodes` grows, slowly where the Beta distributions crowd at 0.

    Args:
        p0: the two parameters of the Beta distribution of p0, > 0; mean p0[0] / (p0[0] + p0[1]).
        p_ic: those of p_ic.
        p_ci: those of p_ci.
        nodes: points per distribution, >= 1.

    Returns: a `Population` of nodes^3 questions.

    Raises:
        InputError: parameters that are not two positive finite numbers, or nodes < 1.

    Reference: docs/theory.md B1; Golub and Welsch, Math. Comp. 23 (1969) 221-230.
    """
    points, weights = beta_questions({"p0": p0, "p_ic": p_ic, "p_ci": p_ci}, nodes)
    return Population(TwoStateChain(**points), weights)


def beta_questions(
    distributions: Mapping[str, tuple[float, float]], nodes: int = 16
) -> tuple[dict[str, Float[np.ndarray, "questions"]], Float[np.ndarray, "questions"]]:
    """Questions with independent Beta rates, by quadrature; the rates have any names.

    Args:
        distributions: the two parameters of the Beta distribution of every rate, > 0.
        nodes: points per distribution (n), >= 1.

    Returns: the rates (probabilities) of n^(number of rates) questions, by name, and the share of
    each question.

    Raises:
        InputError: parameters that are not two positive finite numbers, or nodes < 1.

    Reference: docs/theory.md B1.
    """
    for name, distribution in distributions.items():
        _require_beta(name, distribution)
    require("nodes", nodes, lambda n: n >= 1, "give a number of quadrature points >= 1")
    points, weights = zip(
        *(_gauss_jacobi(*distribution, nodes) for distribution in distributions.values()),
        strict=True,
    )
    shares = np.prod(np.meshgrid(*weights, indexing="ij"), axis=0)
    grid = np.meshgrid(*points, indexing="ij")
    return {n: x.ravel() for n, x in zip(distributions, grid, strict=True)}, shares.ravel()


def sample_beta_population(
    key: Key[Array, ""],
    p0: tuple[float, float],
    p_ic: tuple[float, float],
    p_ci: tuple[float, float],
    questions: int,
) -> Population:
    """Questions drawn with independent p0 ~ Beta, p_ic ~ Beta, p_ci ~ Beta, of equal weight.

    Args:
        key: random key.
        p0: the two parameters of the Beta distribution of p0, > 0; mean p0[0] / (p0[0] + p0[1]).
        p_ic: those of p_ic.
        p_ci: those of p_ci.
        questions: number of questions, >= 1.

    Returns: a `Population` of that many questions.

    Raises:
        InputError: parameters that are not two positive finite numbers, or questions < 1.

    Reference: docs/theory.md B1.
    """
    distributions = {"p0": p0, "p_ic": p_ic, "p_ci": p_ci}
    for name, distribution in distributions.items():
        _require_beta(name, distribution)
    require("questions", questions, lambda n: n >= 1, "give a number of questions >= 1")
    keys = jax.random.split(key, len(distributions))
    draws = (
        jax.random.beta(k, *distribution, shape=(questions,))
        for k, distribution in zip(keys, distributions.values(), strict=True)
    )
    return Population(TwoStateChain(*draws))


def mean_accuracy_after(
    population: Population, k: Int[ArrayLike, "*rounds"]
) -> Float[Array, "*rounds"]:
    """Accuracy of the benchmark after k rounds, E[p_k] = E[pi + r^k (p0 - pi)].

    Args:
        population: the benchmark.
        k: rounds, integers >= 0, any shape.

    Returns: E[p_k] (probability), of the shape of k.

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md B1.
    """
    return _mean(population, jax.vmap(lambda chain: accuracy_after(chain, k))(population.chains))


def mean_accuracy_curve(population: Population, rounds: int) -> Float[Array, "{rounds}+1"]:
    """The accuracies E[p_0], E[p_1], ..., E[p_rounds] of the benchmark.

    Unlike the curve of one chain with r >= 0 it can rise and then fall.

    Args:
        population: the benchmark.
        rounds: number of rounds, >= 0.

    Returns: E[p_k] (probability) at `[k]`.

    Raises:
        InputError: a negative number of rounds.

    Reference: docs/theory.md B1.
    """
    return _mean(population, accuracy_curve(population.chains, rounds))


def limit_accuracy(population: Population) -> Float[Array, ""]:
    """Accuracy of the benchmark after many rounds, lim E[p_k] = E[pi].

    A frozen question keeps its p0. An alternating one (p_ic = p_ci = 1) has no limit and counts
    with the mean of its two values, 1/2: with such questions this is the limit of the average
    over rounds (Cesaro), and E[p_k] itself need not converge.

    Returns: the limit (probability), a scalar.

    Reference: docs/theory.md B1.
    """
    return _mean(population, _limit(population.chains))


def pooled_rates(population: Population, k: Int[ArrayLike, "*rounds"]) -> PooledRates:
    """Flip rates at round k over all questions: E[p_ic | I at k] and E[p_ci | C at k].

    E[p_ic | I at k] = E[(1 - p_k) p_ic] / E[1 - p_k]   and likewise   E[p_k p_ci] / E[p_k].

    Args:
        population: the benchmark.
        k: rounds already done, integers >= 0, any shape.

    Returns: `PooledRates` (probabilities per round) of the shape of k; NaN where nobody is in the
    state to be left (or so few that the probability underflows).

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md B1.
    """
    chains = population.chains
    mirrored = TwoStateChain(1 - chains.p0, chains.p_ci, chains.p_ic)
    return PooledRates(
        p_ic=_share_leaving(population.weights, mirrored, chains.p_ic, k),
        p_ci=_share_leaving(population.weights, chains, chains.p_ci, k),
    )


def pooled_chain(population: Population) -> TwoStateChain:
    """The one chain with the population's E[p0] and the pooled rates of its first round.

    What a homogeneous model fitted to the first round finds, given enough data. Its p_0 and p_1
    are those of the population; its later accuracies and its limit are not.

    Returns: a scalar `TwoStateChain`.

    Raises:
        InputError: every question starts right, or every one wrong: one rate is then unseen.

    Reference: docs/theory.md B1.
    """
    rates = pooled_rates(population, 0)
    for name, rate, state in (("p_ic", rates.p_ic, "wrong"), ("p_ci", rates.p_ci, "right")):
        require(
            f"pooled {name}",
            rate,
            lambda x: ~np.isnan(x),
            f"no question starts {state}, so use pooled_rates at a later round",
        )
    return TwoStateChain(_mean(population, population.chains.p0), *rates)


def bounds(population: Population) -> PopulationBounds:
    """Bounds of the benchmark after many rounds: E[max(p0, pi)], E[pi] and E[min(p0, pi)].

    upper + lower = E[p0] + neutral. Frozen and alternating questions count as in
    `limit_accuracy`. This reading of the paper is an *interpretation*; whoever prefers another
    can pass any function from a `Population` to `PopulationBounds` in its place.

    Returns: `PopulationBounds` of scalars (probabilities).

    Reference: docs/theory.md B2; MarkovScale arXiv 2602.01120 (*interpretation*).
    """
    return _bounds(population, _limit(population.chains))


def bounds_after(population: Population, k: Int[ArrayLike, "*rounds"]) -> PopulationBounds:
    """Bounds of the benchmark after k rounds: E[max(p0, p_k)], E[p_k] and E[min(p0, p_k)].

    upper + lower = E[p0] + neutral at every k.

    Args:
        population: the benchmark.
        k: rounds, integers >= 0, any shape.

    Returns: `PopulationBounds` (probabilities) of the shape of k.

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md B2; MarkovScale arXiv 2602.01120 (*interpretation*).
    """
    return _bounds(population, jax.vmap(lambda c: accuracy_after(c, k))(population.chains))


def gated_accuracy_after(
    population: Population, k: Int[ArrayLike, "*rounds"]
) -> Float[Array, "*rounds"]:
    """Accuracy when only the questions that refinement helps are refined, k rounds each.

    E[p_k if p0 < pi else p0] = E[max(p0, p_k)]: knowing the regime of every question attains the
    upper bound at every k.

    Args:
        population: the benchmark.
        k: rounds given to a beneficial question, integers >= 0, any shape.

    Returns: the accuracy (probability), of the shape of k.

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md B2; MarkovScale arXiv 2602.01120 (gate, *interpretation*).
    """

    def gated(chain: TwoStateChain) -> Float[Array, "*rounds"]:
        helped = regime(chain) == Regime.BENEFICIAL
        return jnp.where(helped, accuracy_after(chain, k), chain.p0)

    return _mean(population, jax.vmap(gated)(population.chains))


def population_first_gain(population: Population) -> Float[Array, ""]:
    """Gain of the benchmark's first round, E[p_1] - E[p_0] = E[(1 - p0) p_ic] - E[p0 p_ci].

    Returns: the gain (probability, signed), a scalar.

    Reference: docs/theory.md B3.
    """
    return _mean(population, marginal_gain(population.chains, 0))


def population_regime(population: Population) -> Int[Array, ""]:
    """Whether one round helps the benchmark: the sign of E[(1 - p0) p_ic] - E[p0 p_ci].

    Of the first round only: unlike that of one chain, the sign of E[p_k] - E[p_0] can change
    with k.

    Returns: a `Regime` value as int32, a scalar. A gain that rounding of the probabilities and of
    their sum could have made counts as `NEUTRAL`.

    Reference: docs/theory.md B3.
    """
    chains = population.chains
    gain = population_first_gain(population)
    flips = _mean(population, chains.p_ic + chains.p_ci * chains.p0)
    # The rounding errors of a sum of n terms walk at random, as sqrt(n).
    noise = 4 * jnp.finfo(chains.dtype).eps * math.sqrt(chains.shape[0]) * flips
    return jnp.where(jnp.abs(gain) <= noise, 0, jnp.sign(gain)).astype(jnp.int32)


def _require_beta(name: str, distribution: tuple[float, float]) -> None:
    """Raise `InputError` unless `distribution` is a pair of Beta parameters."""
    if np.shape(distribution) != (2,):
        raise InputError(
            f"{name} is {distribution}; give the two parameters of a Beta distribution"
        )
    for i, parameter in enumerate(distribution):
        require(
            f"{name}[{i}]",
            parameter,
            lambda x: (x > 0) & np.isfinite(x),
            "a parameter of a Beta distribution must be > 0 and finite",
        )


def _gauss_jacobi(
    a: float, b: float, nodes: int
) -> tuple[Float[np.ndarray, "nodes"], Float[np.ndarray, "nodes"]]:
    """Points in [0, 1] and weights of the Gauss rule of Beta(a, b).

    The eigenvalues of the matrix of the recurrence of the distribution's orthogonal polynomials,
    and the squared first entries of its eigenvectors. Built for the distribution itself it needs no
    Beta function, so narrow distributions (a + b of 1000 and more), whose normalisation underflows,
    lose nothing.
    """
    k = np.arange(1, nodes)
    centre = 2 * k + a + b - 2
    diagonal = 0.5 + (a - b) * (a + b - 2) / (2 * centre * (centre + 2))
    k, centre = k[1:], centre[1:]
    square = k * (k + a - 1) * (k + b - 1) * (k + a + b - 2)
    square = square / (centre**2 * (centre + 1) * (centre - 1))
    variance = a * b / ((a + b) ** 2 * (a + b + 1))
    points, vectors = eigh_tridiagonal(
        np.append(a / (a + b), diagonal), np.sqrt(np.append(variance, square))[: nodes - 1]
    )
    return np.clip(points, 0, 1), vectors[0] ** 2


@jax.jit
def _mean(population: Population, x: Float[Array, "questions *rounds"]) -> Float[Array, "*rounds"]:
    """E[x] over the questions."""
    return _inside_range(_weighted_sum(population.weights, x), x)


@jax.jit
def _inside_range(
    mean: Float[Array, "*rounds"], x: Float[Array, "questions *any"]
) -> Float[Array, "*rounds"]:
    """`mean` between the least and the greatest of the values `x` that it averages.

    Rounding can miss that by an ulp, and so turn a probability into something else.
    """
    # Clipping the value alone keeps the slope.
    inside = jnp.clip(mean, jnp.min(x, axis=0), jnp.max(x, axis=0))
    return mean + jax.lax.stop_gradient(inside - mean)


@jax.jit
def _weighted_sum(
    weights: Float[Array, "questions"], x: Float[Array, "questions *rounds"]
) -> Float[Array, "*rounds"]:
    # Accelerators multiply at reduced precision unless told.
    return jnp.tensordot(weights, x, axes=1, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _limit(chains: TwoStateChain) -> Float[Array, "questions"]:
    """pi, or p0 for frozen questions."""
    pi = stationary_accuracy(chains)
    return jnp.where(jnp.isnan(pi), chains.p0, pi)


@jax.jit
def _bounds(population: Population, end: Float[Array, "questions *rounds"]) -> PopulationBounds:
    """Means of the better end, of `end`, and of the worse end of every question."""
    start = population.chains.p0.reshape((-1,) + (1,) * (end.ndim - 1))
    return PopulationBounds(
        upper=_mean(population, jnp.maximum(start, end)),
        neutral=_mean(population, end),
        lower=_mean(population, jnp.minimum(start, end)),
    )


def _share_leaving(
    weights: Float[Array, "questions"],
    chains: TwoStateChain,
    rate: Float[Array, "questions"],
    k: Int[ArrayLike, "*rounds"],
) -> Float[Array, "*rounds"]:
    """E[p_k rate] / E[p_k] for these chains, NaN where E[p_k] = 0."""
    present = jax.vmap(lambda chain: _small_accuracy_after(chain, k))(chains)
    mass = _weighted_sum(weights, present)
    leaving = _weighted_sum(weights * rate, present)
    share = _inside_range(leaving / jnp.where(mass > 0, mass, 1), rate)
    return jnp.where(mass > 0, share, jnp.nan)


def _small_accuracy_after(
    chain: TwoStateChain, k: Int[ArrayLike, "*rounds"]
) -> Float[Array, "*rounds"]:
    """p_k, accurate relative to its own size also where it dies out.

    p_k = p0 r^k + P(C at k | I at 0) adds two terms >= 0 when r >= 0; when r < 0, p_k stays
    away from 0 unless it is 0.
    """
    r = eigenvalue(chain)
    from_wrong = accuracy_after(TwoStateChain(jnp.zeros_like(r), chain.p_ic, chain.p_ci), k)
    return jnp.where(r >= 0, chain.p0 * r ** jnp.asarray(k) + from_wrong, accuracy_after(chain, k))
