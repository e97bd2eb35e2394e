"""Best of n samples by verifier score: the distribution of the best score and how many samples it
takes.

Scores are independent draws of S, a normal truncated to [0, 1] (`TruncatedNormal`), with
distribution function F. The best of n has F^n; from that follow how many samples are needed to see
one above a threshold, and what the best of n is worth. docs/theory.md D derives it.

Verifier scores pile up near 1, where a fitted `mu` runs far out of [0, 1]. Everything is therefore
computed from the masses on either side of a score, each in a form without cancellation, never from
a difference of normal distribution functions. Every function acts elementwise: the shape of the
score distribution broadcasts against its other arguments; `jit`, `vmap` and (where smooth) `grad`
apply.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key, Real

from msjax.errors import InputError, require, require_uncertain
from msjax.theory._arrays import together
from msjax.theory._integers import smallest_integer

__all__ = [
    "TruncatedNormal",
    "best_score_log_cdf",
    "expected_best_score",
    "sample_scores",
    "samples_needed",
    "samples_to_reach",
    "score_log_cdf",
    "score_log_sf",
    "score_quantile",
]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class TruncatedNormal:
    """The distribution of one sample's score: a normal truncated to [0, 1].

    Density proportional to exp(-(s - mu)^2 / (2 sigma^2)) for 0 <= s <= 1, zero elsewhere. `mu`
    is the mean before truncation and may lie anywhere: beyond 1 the density rises up to s = 1.

    A frozen pytree of two arrays brought to one shape and one floating type when it is made.
    Concrete values are checked then; traced ones cannot be and are taken as they are.

    Args:
        mu: mean of the normal before truncation (score), any finite number, any shape.
        sigma: standard deviation of the normal before truncation (score), > 0, any shape.

    Raises:
        InputError: mu not finite, sigma not finite or not > 0, or shapes that do not broadcast.

    Reference: docs/theory.md D1; OptScale arXiv 2506.22376.
    """

    mu: Float[Array, "*batch"]
    sigma: Float[Array, "*batch"]

    def __init__(self, mu: ArrayLike, sigma: ArrayLike) -> None:
        require("mu", mu, np.isfinite, "give a finite mean")
        require(
            "sigma",
            sigma,
            lambda x: (x > 0) & np.isfinite(x),
            "give a finite standard deviation > 0",
        )
        try:
            arrays = together(mu, sigma)
        except ValueError as error:
            shapes = {"mu": jnp.shape(mu), "sigma": jnp.shape(sigma)}
            raise InputError(
                f"shapes {shapes} do not broadcast; give mu and sigma one shape or scalars"
            ) from error
        for name, array in zip(("mu", "sigma"), arrays, strict=True):
            object.__setattr__(self, name, array)

    @property
    def shape(self) -> tuple[int, ...]:
        """The common shape of mu and sigma."""
        return self.mu.shape

    @property
    def dtype(self) -> Any:
        """The common floating type of mu and sigma."""
        return self.mu.dtype

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], None]:
        """The two parameters as named leaves, for JAX."""
        names = ("mu", "sigma")
        return tuple((jax.tree_util.GetAttrKey(n), getattr(self, n)) for n in names), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, Any]) -> "TruncatedNormal":
        """One of any leaves, for JAX: tracers and placeholders too, so nothing is checked."""
        scores = object.__new__(cls)
        for name, leaf in zip(("mu", "sigma"), leaves, strict=True):
            object.__setattr__(scores, name, leaf)
        return scores


def score_log_cdf(scores: TruncatedNormal, s: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Log of the distribution function, log F(s) = log P(S <= s).

    Args:
        scores: score distribution of any shape.
        s: score, in [0, 1], any shape that broadcasts.

    Returns: log F(s), <= 0, accurate relative to its own size both where F vanishes and where it
    is next to 1; -inf at s = 0.

    Raises:
        InputError: a score outside [0, 1] or NaN.

    Reference: docs/theory.md D1; OptScale arXiv 2506.22376.
    """
    return _log_cdf(scores, _score("s", s, scores))


def score_log_sf(scores: TruncatedNormal, s: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Log of the survival function, log P(S > s) = log(1 - F(s)).

    Args:
        scores: score distribution of any shape.
        s: score, in [0, 1], any shape that broadcasts.

    Returns: log P(S > s), <= 0, as accurate as `score_log_cdf`; -inf at s = 1.

    Raises:
        InputError: a score outside [0, 1] or NaN.

    Reference: docs/theory.md D1; OptScale arXiv 2506.22376.
    """
    return _log_sf(scores, _score("s", s, scores))


def score_quantile(
    scores: TruncatedNormal, probability: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """Quantile, the smallest s with F(s) >= `probability`.

    Found by bisection of the floating-point numbers in [0, 1], so it never decreases in
    `probability`, not even by rounding. Differentiable by the implicit function theorem.

    Args:
        scores: score distribution of any shape.
        probability: in [0, 1], any shape that broadcasts.

    Returns: the quantile (score), in [0, 1].

    Raises:
        InputError: a probability outside [0, 1] or NaN.

    Reference: docs/theory.md D1.
    """
    require(
        "probability",
        probability,
        lambda x: (x >= 0) & (x <= 1),
        "a probability must lie in [0, 1]",
    )
    shape = np.broadcast_shapes(scores.shape, jnp.shape(probability))
    of_shape = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape), scores)
    return _quantile(of_shape, jnp.broadcast_to(jnp.asarray(probability, scores.dtype), shape))


def sample_scores(
    key: Key[Array, ""], scores: TruncatedNormal, shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """Independent scores, by inversion: the quantile of a uniform number.

    Args:
        key: random key.
        scores: score distribution, of a shape that broadcasts to `shape`.
        shape: shape of the result.

    Returns: scores in [0, 1], differentiable in mu and sigma for a fixed key.

    Raises:
        InputError: a shape to which that of the score distribution does not broadcast.

    Reference: docs/theory.md D1.
    """
    try:
        np.broadcast_to(np.empty(scores.shape), shape)
    except ValueError as error:
        raise InputError(
            f"shape is {shape}; give one to which {scores.shape}, that of the scores, broadcasts"
        ) from error
    return score_quantile(scores, jax.random.uniform(key, shape, scores.dtype))


def best_score_log_cdf(
    scores: TruncatedNormal, s: Real[ArrayLike, "..."], n: Int[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """Log distribution function of the best of n scores, log P(max <= s) = n log F(s).

    Args:
        scores: score distribution of any shape.
        s: score, in [0, 1], any shape that broadcasts.
        n: samples, integers >= 1, any shape that broadcasts.

    Returns: n log F(s), <= 0; -inf at s = 0.

    Raises:
        InputError: a score outside [0, 1] or NaN, or n < 1.

    Reference: docs/theory.md D1; OptScale arXiv 2506.22376 (F_Y = F_S^N).
    """
    log_cdf, samples = jnp.broadcast_arrays(score_log_cdf(scores, s), _samples(n))
    return samples * log_cdf


def samples_needed(
    exceedance: Real[ArrayLike, "..."], confidence: Real[ArrayLike, "..."]
) -> Int[Array, "..."]:
    """Samples until one passes, N* = ceil(log(1 - confidence) / log(1 - exceedance)).

    The smallest N >= 1 with 1 - (1 - exceedance)^N >= confidence, where the confidence is met to
    within rounding of the two inputs. If passing is rare (exceedance near 0, F(s_min) near 1) N*
    is large; if nearly every sample passes it is 1.

    Args:
        exceedance: probability that one sample passes, P(S > s_min) = 1 - F(s_min), any shape.
        confidence: probability wanted that at least one passes, in (0, 1) (OptScale's alpha), any
            shape that broadcasts.

    Returns: int32 samples of the broadcast shape: 1 if every sample passes, `UNBOUNDED` if none
    does or no int32 is enough.

    Raises:
        InputError: an exceedance outside [0, 1] or a confidence outside (0, 1).

    Reference: docs/theory.md D2; OptScale arXiv 2506.22376 (N*).
    """
    require(
        "exceedance", exceedance, lambda x: (x >= 0) & (x <= 1), "a probability must lie in [0, 1]"
    )
    log_risk = _log_risk(confidence, jnp.result_type(float, exceedance, confidence))
    return _smallest_n(_log_complement(jnp.asarray(exceedance, log_risk.dtype)), log_risk)


def samples_to_reach(
    scores: TruncatedNormal, s_min: Real[ArrayLike, "..."], confidence: Real[ArrayLike, "..."]
) -> Int[Array, "..."]:
    """Samples until the best score exceeds s_min, N* = ceil(log(1 - confidence) / log F(s_min)).

    `samples_needed` at the exceedance 1 - F(s_min), which is never formed: log F stays accurate
    where it is next to 0 and N* is largest.

    Args:
        scores: score distribution of any shape.
        s_min: score to exceed, in [0, 1], any shape that broadcasts.
        confidence: probability wanted that the best score exceeds it, in (0, 1) (OptScale's
            alpha), any shape that broadcasts.

    Returns: int32 samples of the broadcast shape, `UNBOUNDED` if no int32 is enough (always so at
    s_min = 1).

    Raises:
        InputError: s_min outside [0, 1] or a confidence outside (0, 1).

    Reference: docs/theory.md D2; OptScale arXiv 2506.22376 (N*).
    """
    log_failure = _log_cdf(scores, _score("s_min", s_min, scores))
    return _smallest_n(log_failure, _log_risk(confidence, scores.dtype))


def expected_best_score(scores: TruncatedNormal, n: Int[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Expected best of n scores, E[max] = 1 - integral_0^1 F(s)^n ds.

    F^n rises from 0 to 1 within a short range when n is large or the scores are concentrated. The
    integral is taken by 40 Gauss-Legendre nodes on either side of the median of the best score,
    from where F^n is one rounding unit to where it is that far from 1.

    Args:
        scores: score distribution of any shape.
        n: samples, integers >= 1, any shape that broadcasts.

    Returns: E[max] (score), to within 1e-12 of its own size in float64 and 2e-6 in float32.

    Raises:
        InputError: n < 1.

    Reference: docs/theory.md D3.
    """
    return _expected_best(scores, _samples(n))


class _Split(NamedTuple):
    """Masses on the two sides of a score: F(s) : 1 - F(s) = below exp(log_scale) : above."""

    below: Float[Array, "..."]
    above: Float[Array, "..."]
    log_scale: Float[Array, "..."]


def _score(name: str, s: ArrayLike, scores: TruncatedNormal) -> Float[Array, "..."]:
    """`s` as an array of the distribution's type, checked to lie in [0, 1]."""
    require(name, s, lambda x: (x >= 0) & (x <= 1), "a score must lie in [0, 1]")
    array = jnp.asarray(s, scores.dtype)
    if not isinstance(array, jax.core.Tracer):
        return array
    # Rounding in traced code may leave [0, 1]. Clipping the value alone keeps the slope there.
    return array + jax.lax.stop_gradient(jnp.clip(array, 0, 1) - array)


def _samples(n: ArrayLike) -> Int[Array, "..."]:
    """`n` as an int32 array, checked to be whole and positive."""
    if not jnp.issubdtype(jnp.result_type(n), jnp.integer):
        raise InputError(f"n is {n}; give the number of samples as an integer")
    require("n", n, lambda x: x >= 1, "give a number of samples >= 1")
    return jnp.asarray(n, jnp.int32)


def _log_risk(confidence: ArrayLike, dtype: Any) -> Float[Array, "..."]:
    """log(1 - confidence), the confidence checked to lie in (0, 1)."""
    require_uncertain("confidence", confidence)
    return _log_complement(jnp.asarray(confidence, dtype))


@jax.jit
def _log_complement(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(1 - x) to a unit of rounding, which XLA's log1p in float64 misses by 100 near x = .4."""
    return jnp.where(x < 0.25, jnp.log1p(-jnp.minimum(x, 0.25)), jnp.log(1 - x))


@jax.jit
def _smallest_n(
    log_failure: Float[Array, "..."], log_risk: Float[Array, "..."]
) -> Int[Array, "..."]:
    """Smallest N >= 1 with N log_failure <= log_risk, both <= 0."""
    failure, risk = jnp.broadcast_arrays(jnp.abs(log_failure), jnp.abs(log_risk))

    def condition(x: Float[Array, "..."]) -> Float[Array, "..."]:
        # Factor from a relative error of 1 - exp(-x) to that of x, below the overflow of exp.
        x = jnp.clip(x, jnp.finfo(x.dtype).tiny, 50)
        return jnp.expm1(x) / x

    exact = risk / failure
    slack = jnp.finfo(exact.dtype).eps * exact * (4 + condition(failure) + condition(risk))
    return jnp.maximum(smallest_integer(exact, slack), 1)


@jax.jit
def _split(scores: TruncatedNormal, s: Float[Array, "..."]) -> _Split:
    """The masses below and above `s`, neither of them from a difference.

    In units of sigma. The side of `s` on which mu lies holds the highest density: at mu itself, or
    at the end of [0, 1] if mu lies beyond it. Its mass is taken relative to that density, the mass
    of the other side relative to the density at `s`.
    """
    mu, sigma, s = jnp.broadcast_arrays(scores.mu, scores.sigma, s)
    mirrored = mu > s
    near = jnp.where(mirrored, 1 - s, s) / sigma
    far = jnp.where(mirrored, s, 1 - s) / sigma
    to_mu = jnp.where(mirrored, mu - s, s - mu) / sigma
    end_to_mu = jnp.where(mirrored, 1 - mu, mu) / sigma
    contains_mu = end_to_mu > 0
    beyond = jnp.where(contains_mu, 0, -end_to_mu)
    mode_side = jnp.where(
        contains_mu, _half_bell(end_to_mu) + _half_bell(to_mu), _strip(beyond, near)
    )
    other_side = _strip(to_mu, far)
    fall = jnp.where(contains_mu, to_mu**2 / 2, near * (near / 2 + beyond))
    return _Split(
        below=jnp.where(mirrored, other_side, mode_side),
        above=jnp.where(mirrored, mode_side, other_side),
        log_scale=jnp.where(mirrored, -fall, fall),
    )


@jax.jit
def _log_cdf(scores: TruncatedNormal, s: Float[Array, "..."]) -> Float[Array, "..."]:
    split = _split(scores, s)
    return _log_share(split.below, split.above, split.log_scale)


@jax.jit
def _log_sf(scores: TruncatedNormal, s: Float[Array, "..."]) -> Float[Array, "..."]:
    split = _split(scores, s)
    return _log_share(split.above, split.below, -split.log_scale)


@jax.jit
def _log_share(
    part: Float[Array, "..."], rest: Float[Array, "..."], log_scale: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Log of part e^log_scale / (part e^log_scale + rest) for masses >= 0, not both 0."""
    major = jnp.log(part) + log_scale >= jnp.log(rest)
    small, large = jnp.where(major, rest, part), jnp.where(major, part, rest)
    scale = jnp.where(major, -log_scale, log_scale)
    none = small == 0
    # Divisors and logarithms of zero are replaced before `where` discards what they give.
    large = jnp.where(large == 0, 1, large)
    log_ratio = scale + jnp.log(jnp.where(none, 1, small)) - jnp.log(large)
    log_small = jnp.where(none, -jnp.inf, log_ratio)
    return jnp.where(major, 0, log_small) - jnp.log1p(jnp.exp(scale) * small / large)


def _half_bell(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Integral of exp(-t^2 / 2) over [0, x]."""
    return math.sqrt(math.pi / 2) * jax.scipy.special.erf(x / math.sqrt(2))


def _strip(slope: Float[Array, "..."], width: Float[Array, "..."]) -> Float[Array, "..."]:
    """Integral of exp(-slope t - t^2 / 2) over [0, width], for slope, width >= 0.

    By Gauss-Legendre nodes where the integrand is above rounding, which loses nothing to
    cancellation, as the difference of two tails of the normal would.
    """
    # exp(-drop) is one rounding unit, and so many nodes integrate exp(-drop x) over [0, 1] to it.
    drop, count = (37.0, 28) if slope.dtype == jnp.float64 else (17.0, 12)
    reach = 2 * drop / (slope + jnp.hypot(slope, math.sqrt(2 * drop)))
    width = jnp.minimum(width, reach)

    def add(total: Float[Array, "..."], at: tuple[Array, Array]) -> tuple[Array, None]:
        node, weight = at
        return total + weight * jnp.exp(-width * node * (slope + width * node / 2)), None

    nodes, weights = map(jnp.asarray, gauss_legendre(count, width.dtype))
    total, _ = jax.lax.scan(add, jnp.zeros_like(width), (nodes, weights))
    return width * total


@functools.cache
def gauss_legendre(
    count: int, dtype: Any
) -> tuple[Float[np.ndarray, "{count}"], Float[np.ndarray, "{count}"]]:
    """Nodes and weights of the rule for integrals over [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return ((nodes + 1) / 2).astype(dtype), (weights / 2).astype(dtype)


@jax.jit
def bisect(scores: TruncatedNormal, log_odds: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Smallest number s in [0, 1] with log(F(s) / (1 - F(s))) >= log_odds, to the last bit.

    Non-negative floating-point numbers are ordered as the integers of the same bits.
    """
    bits = jnp.finfo(log_odds.dtype).bits
    integer = jnp.dtype(f"int{bits}")
    one = jax.lax.bitcast_convert_type(jnp.ones_like(log_odds), integer)

    def halve(_: Int[Array, ""], bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        below, reached = bracket
        middle = below + ((reached - below) >> 1)
        split = _split(scores, jax.lax.bitcast_convert_type(middle, log_odds.dtype))
        odds = split.log_scale + jnp.log(split.below) - jnp.log(split.above)
        enough = odds >= log_odds
        return jnp.where(enough, below, middle), jnp.where(enough, middle, reached)

    # 1.0 is below 2^(bits - 2), and every step halves the bracket.
    _, reached = jax.lax.fori_loop(0, bits - 2, halve, (jnp.full_like(one, -1), one))
    return jax.lax.bitcast_convert_type(reached, log_odds.dtype)


@jax.jit
def _expected_best(scores: TruncatedNormal, samples: Int[Array, "..."]) -> Float[Array, "..."]:
    shape = np.broadcast_shapes(scores.shape, samples.shape)
    scores = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape), scores)
    samples = jnp.broadcast_to(samples, shape)
    eps = float(jnp.finfo(scores.dtype).eps)

    def best_quantile(log_probability: float) -> Float[Array, "*shape"]:
        log_cdf = log_probability / samples.astype(scores.dtype)
        log_odds = log_cdf - jnp.log(-jnp.expm1(log_cdf))
        # A bound of the integral moves nothing but what was neglected.
        return jax.lax.stop_gradient(bisect(scores, log_odds))

    low, median, high = map(best_quantile, (math.log(eps), math.log(0.5), math.log1p(-eps)))
    starts, widths = jnp.stack([low, median]), jnp.stack([median - low, high - median])

    def piece(node: Float[Array, ""], weight: Float[Array, ""]) -> Float[Array, "2 *shape"]:
        log_cdf = best_score_log_cdf(scores, starts + node * widths, samples)
        return weight * widths * jnp.exp(log_cdf)

    nodes, weights = map(jnp.asarray, gauss_legendre(40, scores.dtype))
    return high - jnp.sum(jax.vmap(piece)(nodes, weights), axis=(0, 1))


@jax.custom_jvp
def _quantile(
    scores: TruncatedNormal, probability: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    return bisect(scores, jnp.log(probability) - jnp.log1p(-probability))


@_quantile.defjvp
def _quantile_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # F(s; mu, sigma) = probability, differentiated on both sides.
    scores, probability = primals
    s = _quantile(scores, probability)
    _, moved = jax.jvp(
        lambda distribution: jnp.exp(_log_cdf(distribution, s)), (scores,), (tangents[0],)
    )
    split = _split(scores, s)
    at_s = jnp.exp(-jnp.abs(split.log_scale))
    mass = jnp.where(
        split.log_scale < 0, split.below * at_s + split.above, split.below + split.above * at_s
    )
    density = at_s / (scores.sigma * mass)
    return s, (tangents[1] - moved) / jnp.where(density == 0, 1, density)
