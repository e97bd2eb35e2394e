"""Runs of which nothing is seen but whether each revision changed the answer.

C -> C keeps the answer, I -> C and C -> I change it, I -> I keeps it with probability rho. No label
and no verifier is needed, so only a convention tells right from wrong: either right answers are
kept more often than wrong ones (`LabelFree`) or less (`LabelFreeMirrored`). At rho = 1 the two
readings are mirror images that no data can tell apart. For rho < 1 their distributions differ, but
above rho = .9 by so little that it takes thousands of questions to see it. A result is therefore to
be given with `swap_statement`.

Reference: docs/theory.md C2, F3.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int8, PRNGKeyArray

from msjax.data.runs import MISSING
from msjax.posterior.models.model import Draws, Parameters
from msjax.posterior.models.noisy import HiddenChain


class LabelFree(HiddenChain):
    """A chain seen through the changes of its answers; right ones are kept at least as often.

    The data are `changed`, [question, round]: 1 where the revision changed the answer, 0 where it
    kept it, -1 where there was none. A column is a round, so `rounds` of `continue_runs` counts
    columns, and a new run is [question, 0].

    The prior is uniform on the (p0, p_ic, p_ci, rho) that meet 1 - p_ci >= (1 - p_ic) rho. Where
    this is an equality, changes say nothing of the state; three rounds are needed in any case.

    Reference: docs/theory.md F9.
    """

    name = "label_free"
    says = (
        "every question has the same rates, only changes of the answer are seen, and right answers "
        "are taken to be kept at least as often as wrong ones"
    )
    joint_prior = "p0, p_ic, p_ci, rho uniform on [0, 1]^4 where 1 - p_ci >= (1 - p_ic) rho"
    parameters = ("p0", "p_ic", "p_ci", "rho")
    min_rounds = 3
    sees = "changes"
    mirrored: ClassVar[bool] = False

    def prior(self) -> Parameters:
        coordinates = numpyro.sample("coordinates", Coordinates(self.mirrored))
        rates = dict(zip(self.parameters, to_rates(coordinates, self.mirrored), strict=True))
        return {name: numpyro.deterministic(name, rate) for name, rate in rates.items()}

    def operators(self, parameters: Parameters) -> Float[Array, "signal state next_state"]:
        p_ic, p_ci, rho = (parameters[name] for name in ("p_ic", "p_ci", "rho"))
        wrong = 1 - p_ic
        return jnp.array(
            [[[wrong * rho, 0.0], [0.0, 1 - p_ci]], [[wrong * (1 - rho), p_ic], [p_ci, 0.0]]]
        )

    def identified(self, changed: Int8[np.ndarray, "question round"]) -> dict[str, bool]:
        """Given the convention, on which the runs do not bear."""
        rounds = (changed != MISSING).sum(axis=1).max(initial=0)
        differ = (changed == 0).any() and (changed == 1).any()
        return dict.fromkeys(self.parameters, bool(rounds >= self.min_rounds and differ))


class LabelFreeMirrored(LabelFree):
    """The other reading of the same data: wrong answers are kept at least as often as right ones.

    Reference: docs/theory.md F9.
    """

    name = "label_free_mirrored"
    says = (
        "every question has the same rates, only changes of the answer are seen, and wrong answers "
        "are taken to be kept at least as often as right ones"
    )
    joint_prior = "p0, p_ic, p_ci, rho uniform on [0, 1]^4 where 1 - p_ci <= (1 - p_ic) rho"
    mirrored = True


class Coordinates(dist.Distribution):
    """Four numbers in (0, 1), so distributed that (p0, p_ic, p_ci, rho) is uniform in a reading.

    The first is m, the probability that the first revision keeps the answer, which runs show best.
    It lies between the probabilities of keeping a wrong and a right answer; the second and third
    say where below m the lower and where above m the higher of the two is, and the fourth is the
    share of repairs among the changes of wrong answers. In these coordinates, unlike in the rates,
    the posterior has no narrow curved ridge.
    """

    support = dist.constraints.independent(dist.constraints.unit_interval, 1)
    pytree_aux_fields = ("mirrored",)

    def __init__(self, mirrored: bool) -> None:
        self.mirrored = mirrored
        super().__init__(batch_shape=(), event_shape=(4,))

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Array:
        """Uniform rates, through inverse distribution functions of p_ic, of rho, of p_ci.

        The convention leaves to p_ci the share 1 - (1 - p_ic) rho, or (1 - p_ic) rho if mirrored,
        to which the density of (p_ic, rho) is therefore proportional.
        """
        p0, *uniform, part = jnp.moveaxis(jax.random.uniform(key, (*sample_shape, 4)), -1, 0)
        if self.mirrored:
            wrong, rho = map(jnp.sqrt, uniform)
            p_ic, p_ci = 1 - wrong, 1 - part * wrong * rho
        else:
            p_ic = 3 * uniform[0] / (1 + jnp.sqrt(1 + 3 * uniform[0]))
            rho = (1 + p_ic) * uniform[1] / (1 + jnp.sqrt(1 - (1 - p_ic**2) * uniform[1]))
            p_ci = part * (1 - (1 - p_ic) * rho)
        wrong_kept, right_kept = (1 - p_ic) * rho, 1 - p_ci
        m = p0 * right_kept + (1 - p0) * wrong_kept
        low, high = jnp.minimum(wrong_kept, right_kept), jnp.maximum(wrong_kept, right_kept)
        return jnp.stack([m, low / m, (high - m) / (1 - m), p_ic / (1 - wrong_kept)], axis=-1)

    def log_prob(self, value: Array, intermediates: None = None) -> Array:
        """Logarithm of the derivative of the rates, over the volume of the reading, 3/4 or 1/4."""
        m, low, high, _ = jnp.moveaxis(value, -1, 0)
        _, p_ic, _, rho = to_rates(value, self.mirrored)
        gap = m * (1 - low) + (1 - m) * high
        volume = 0.25 if self.mirrored else 0.75
        return jnp.log(m * (1 - m) * (1 - (1 - p_ic) * rho) / (gap * (1 - p_ic) * volume))


def to_rates(coordinates: Float[Array, "*any 4"], mirrored: bool) -> tuple[Array, ...]:
    """p0, p_ic, p_ci and rho of `Coordinates`."""
    m, low, high, share = jnp.moveaxis(coordinates, -1, 0)
    below, above = m * (1 - low), (1 - m) * high
    wrong_kept, right_kept = m - below, m + above
    p0 = below / (below + above)
    if mirrored:
        wrong_kept, right_kept, p0 = right_kept, wrong_kept, 1 - p0
    still_wrong = 1 - share + wrong_kept * share
    # At most 1 but for rounding.
    return p0, 1 - still_wrong, 1 - right_kept, jnp.minimum(wrong_kept / still_wrong, 1.0)


def mirror(draws: Draws) -> Draws:
    """The draws with right and wrong exchanged: 1 - p0 for p0, p_ic for p_ci and p_ci for p_ic.

    Exactly as likely as the original if rho = 1. For rho < 1 it is only near the other reading,
    which a fit of `LabelFreeMirrored` gives.

    Reference: docs/theory.md F9.
    """
    return draws | {"p0": 1 - draws["p0"], "p_ic": draws["p_ci"], "p_ci": draws["p_ic"]}


def swap_statement(draws: Draws, mirrored: Draws) -> str:
    """What a report of a label-free fit has to say: p0 and pi in both readings, medians and 90 %.

    Args:
        draws: of `LabelFree`.
        mirrored: of `LabelFreeMirrored`, or `mirror(draws)` where rho is near 1.

    Reference: docs/theory.md F9.
    """
    return (
        "Without labels, right and wrong are identified only up to a swap. If right answers are "
        f"those kept more often, {_in_words(draws)}; if wrong answers are, {_in_words(mirrored)}. "
        "Which of the two holds, only labels can tell."
    )


def _in_words(draws: Draws) -> str:
    limit = draws["p_ic"] / (draws["p_ic"] + draws["p_ci"])
    parts = []
    for name, values in (("p0", draws["p0"]), ("pi", limit)):
        low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
        parts.append(f"{name} is {median:.2f} (90 % interval {low:.2f} to {high:.2f})")
    return " and ".join(parts)
