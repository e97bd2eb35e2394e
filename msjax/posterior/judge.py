"""How often a judge accepts right and wrong answers: posteriors of its two rates.

Both are independent of the chain given the labels. Questions differ, in how their answers look to a
judge as in all else, so every question has rates of its own and what is reported is their mean over
questions. A loop that stops at the first acceptance is no obstacle: whether it goes on depends on
what was seen alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from msjax.data.runs import MISSING, Runs
from msjax.data.trajectory import Trajectory
from msjax.intervals import Interval
from msjax.posterior.average import DRAWS
from msjax.posterior.models.model import Draws, Factor
from msjax.posterior.quadrature import integrate
from msjax.posterior.quantities import estimate

__all__ = ["JudgePosterior", "fit_judge"]


@dataclass(frozen=True)
class JudgePosterior:
    """What labels and verdicts say of a judge; NaN where no answer of that class was judged.

    Attributes:
        accept_right: draws of s, the mean over questions of P(accept | right).
        accept_wrong: draws of f, the mean over questions of P(accept | wrong).
        correlation_right, correlation_wrong: draws of how much verdicts on several answers of a
            question agree beyond these means (0 independent, 1 the same).
        judged_right, judged_wrong: answers of either class with a verdict.
        accepted_right, accepted_wrong: of which the judge accepted so many.
        unjudged: answers without a verdict, which are left out.
        votes_right, votes_wrong: draws of how much several verdicts on one and the same answer
            agree beyond chance (0 independent, 1 the same); NaN where no answer of that class was
            judged more than once.
    """

    accept_right: Float[np.ndarray, " draw"]
    accept_wrong: Float[np.ndarray, " draw"]
    correlation_right: Float[np.ndarray, " draw"]
    correlation_wrong: Float[np.ndarray, " draw"]
    judged_right: int
    judged_wrong: int
    accepted_right: int
    accepted_wrong: int
    unjudged: int
    votes_right: Float[np.ndarray, " draw"]
    votes_wrong: Float[np.ndarray, " draw"]

    @property
    def false_reject(self) -> Interval:
        """1 - s, share of right answers that it rejects."""
        return estimate(1 - self.accept_right)

    @property
    def false_accept(self) -> Interval:
        """f, share of wrong answers that it accepts."""
        return estimate(self.accept_wrong)

    @property
    def discrimination(self) -> Interval:
        """The difference s - f: 0 is a judge that tells nothing, 1 one that never errs."""
        return estimate(self.accept_right - self.accept_wrong)

    @property
    def tells(self) -> bool:
        """Whether s - f is distinguishable from 0: its 90 % interval lies on one side of it."""
        found = self.discrimination
        return found.identified and (found.low > 0 or found.high < 0)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What stands in the way of relying on the verdicts."""
        found = []
        for name, n in (("right", self.judged_right), ("wrong", self.judged_wrong)):
            if not n:
                found.append(
                    f"no {name} answer was judged, so how often the judge accepts {name} answers "
                    "is not identified, nor is its discrimination"
                )
        accepted = self.accepted_right + self.accepted_wrong
        if accepted in (0, self.judged_right + self.judged_wrong):
            found.append(
                f"the judge {'accepts' if accepted else 'rejects'} every answer: its verdicts tell "
                "nothing, and a loop that waits for one is a loop of fixed length"
            )
        elif self.discrimination.identified and not self.tells:
            found.append(
                "the judge's discrimination is not distinguishable from zero: do not stop by its "
                "verdicts; decide by the chain alone, or vote"
            )
        elif self.discrimination.high < 0:
            found.append("the judge accepts wrong answers more often than right ones")
        if self.unjudged:
            found.append(
                f"{self.unjudged:,} answers have no verdict; they are left out, which is fair only "
                "if whether it was asked did not depend on what it would have said"
            )
        return tuple(found)


def fit_judge(runs: Runs, seed: int = 0) -> JudgePosterior | None:
    """The posterior of a judge's rates from labelled runs with verdicts; None without verdicts.

    Given the class of an answer, accept ~ Bernoulli(rate of its question) and the rates of
    questions ~ Beta with mean m and intraclass correlation rho, both uniform in [0, 1]: the
    acceptances of a question are Beta-binomial. Integrated on a grid, so nothing is sampled
    but independent draws.

    Args:
        runs: one group, from which every answer with a label and a verdict counts.
        seed: of the draws.

    Returns: `JudgePosterior`, with as many draws as a `Posterior` has.

    Reference: docs/theory.md H5; Skellam (1948), A probability distribution derived from the
    binomial distribution by regarding the probability of success as variable.
    """
    asked = runs.real & (runs.verdicts != MISSING)
    if not asked.any():
        return None
    random = np.random.default_rng([seed, 7])
    names = np.unique(np.array(runs.question_ids), return_inverse=True)[1]
    right, wrong = (_class_rate(runs, names, asked & known, random) for known in _classes(runs))
    votes_right, votes_wrong = _vote_correlations(runs, random)
    judged = [asked & known for known in _classes(runs)]
    counts = [int(known.sum()) for known in judged]
    accepted = [int((known & (runs.verdicts == 1)).sum()) for known in judged]
    return JudgePosterior(
        accept_right=right["mean"],
        accept_wrong=wrong["mean"],
        correlation_right=right["correlation"],
        correlation_wrong=wrong["correlation"],
        judged_right=counts[0],
        judged_wrong=counts[1],
        accepted_right=accepted[0],
        accepted_wrong=accepted[1],
        unjudged=int((runs.real & ~asked).sum()),
        votes_right=votes_right,
        votes_wrong=votes_wrong,
    )


def _classes(runs: Runs) -> tuple[Bool[np.ndarray, "row answer"], Bool[np.ndarray, "row answer"]]:
    return runs.right, runs.real & ~runs.right


def _class_rate(
    runs: Runs,
    names: np.ndarray,
    judged: Bool[np.ndarray, "row answer"],
    random: np.random.Generator,
) -> Draws:
    """Draws of mean and correlation of one class over questions."""
    accepts, trials = (
        np.bincount(names, weights=x.sum(axis=1)).astype(int)
        for x in (judged & (runs.verdicts == 1), judged)
    )
    return _beta_binomial(accepts, trials, random)


def _vote_correlations(runs: Runs, random: np.random.Generator) -> list[np.ndarray]:
    """Draws of the correlation of votes on one answer, of right and of wrong ones."""
    counts: list[list[tuple[int, int]]] = [[], []]
    for row, run in enumerate(_voted(runs)):
        for k, votes in enumerate(run.votes):
            said = [vote for vote in votes if vote is not None]
            if len(said) > 1:
                counts[1 - int(runs.right[row, k])].append((sum(said), len(said)))
    found = []
    for each in counts:
        accepts, trials = np.array(each, int).reshape(-1, 2).T
        found.append(_beta_binomial(accepts, trials, random)["correlation"])
    return found


def _voted(runs: Runs) -> Sequence[Trajectory]:
    """The records, if some answers may have been judged more than once."""
    if runs.records is None or isinstance(runs.records, tuple):
        return runs.records or ()
    settings = [] if runs.details is None else runs.details.settings_there
    # Others stay in their file, unread.
    return runs.records if any(one.get("judge_votes") for one, _ in settings) else ()


def _beta_binomial(
    accepts: Int[np.ndarray, " unit"],
    trials: Int[np.ndarray, " unit"],
    random: np.random.Generator,
) -> Draws:
    """Draws of mean and correlation of acceptances that are Beta-binomial in every unit."""
    if not trials.any():
        nothing = np.full(DRAWS, np.nan)
        return {"mean": nothing, "correlation": nothing}
    # Polya's urn: the i-th acceptance of a question has the chance of m (1 - rho) + i rho, in
    # units of what the verdicts before it add up to.
    more = [
        (counts[:, None] > np.arange(trials.max())[None]).sum(axis=0)
        for counts in (accepts, trials - accepts, trials)
    ]

    def log_likelihood(parameters: Draws) -> np.ndarray:
        mean, rho = parameters["mean"], parameters["correlation"]
        total = np.zeros(np.broadcast_shapes(mean.shape, rho.shape))
        for i, (yes, no, both) in enumerate(zip(*more, strict=True)):
            total += yes * np.log(mean * (1 - rho) + i * rho)
            total += no * np.log((1 - mean) * (1 - rho) + i * rho)
            total -= both * np.log(1 - rho + i * rho)
        return total

    uniform = stats.uniform()
    grid = integrate(Factor(("mean", "correlation"), (uniform, uniform), log_likelihood))
    return grid.draw(random, DRAWS)
