"""What a pilot teaches of repairs, breaks and wrong answers, and the policy that rests on it.

The same policy as the rule `msjax.rules.most_probable.belief_answers`, for whole arrays at once and
with nothing to compile.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from msjax.data.runs import Runs

if TYPE_CHECKING:
    from msjax.rules.protocol import StoppingRule

__all__ = ["LearntAnswers", "belief_policy", "learn"]

_MOST_WRONG = 100
_IMPOSSIBLE = 1e-30
_NOISE = 1e-6


class LearntAnswers(NamedTuple):
    """How answers come about: posterior means under uniform priors.

    Attributes:
        p0: probability that the first answer is right.
        p_ic, p_ci: probabilities that a round repairs a wrong answer and breaks a right one.
        keep_wrong: probability that a revision from wrong to wrong keeps the answer.
        wrong_answers: how many wrong answers a question has, an effective number.
        round_tokens: mean uncached tokens of rounds 1, 2, ...; 0 where not reported.
    """

    p0: float
    p_ic: float
    p_ci: float
    keep_wrong: float
    wrong_answers: float
    round_tokens: Float[np.ndarray, " round"]

    def rule(self, token_price: float) -> "StoppingRule":
        """The rule that does the same in front of a model, `token_price` in right answers."""
        from msjax.rules.most_probable import belief_answers
        from msjax.theory.answer_posterior import AnswerDistribution
        from msjax.theory.chain import TwoStateChain

        chain = TwoStateChain(self.p0, self.p_ic, self.p_ci)
        distribution = AnswerDistribution(chain, self.keep_wrong, self.wrong_answers)
        return belief_answers(distribution, self.round_tokens, price=token_price)


def learn(runs: Runs, chosen: Bool[np.ndarray, " question"]) -> LearntAnswers:
    """What these questions teach; `runs` holds rounds of revision and their answers."""
    right, answers = runs.right[chosen], runs.answers[chosen]
    before, after = right[:, :-1], right[:, 1:]
    real = runs.real[chosen, 1:]
    stayed_wrong = real & ~before & ~after
    kept = answers[:, :-1] == answers[:, 1:]

    def mean(yes: Bool[np.ndarray, "..."], no: Bool[np.ndarray, "..."]) -> float:
        return float((1 + yes.sum()) / (2 + yes.sum() + no.sum()))

    tokens = runs.uncached[chosen, 1:]
    reported = real & ~np.isnan(tokens)
    spent = np.where(reported, tokens, 0).sum(axis=0) / np.maximum(reported.sum(axis=0), 1)
    return LearntAnswers(
        mean(right[:, 0], ~right[:, 0]),
        mean(real & ~before & after, stayed_wrong),
        mean(real & before & ~after, real & before & after),
        mean(stayed_wrong & kept, stayed_wrong & ~kept),
        _wrong_answers(right, runs.real[chosen], answers),
        spent,
    )


def _wrong_answers(
    right: Bool[np.ndarray, "question answer"],
    real: Bool[np.ndarray, "question answer"],
    answers: Int[np.ndarray, "question answer"],
) -> float:
    """Posterior mean over 2 to 100 wrong answers, prior 1 / m.

    Of m equally likely wrong answers, of which s were given before, a fresh wrong one repeats one
    of those with probability s / m; the one before it, if wrong, counts neither in s nor in m.
    """
    wrong = real & ~right
    m = np.arange(2, _MOST_WRONG + 1)
    log_weight = -np.log(m)
    given = np.zeros(len(answers), int)
    for k in range(answers.shape[1]):
        earlier = (wrong[:, :k] & (answers[:, :k] == answers[:, [k]])).any(axis=1)
        if k:
            replaced = wrong[:, k] & wrong[:, k - 1] & (answers[:, k] != answers[:, k - 1])
            fresh = replaced | (wrong[:, k] & right[:, k - 1])
            # Few combinations occur, however many questions there are.
            code = (((given - replaced) * 2 + replaced) * 2 + earlier)[fresh]
            counts = np.bincount(code)
            for number in np.flatnonzero(counts):
                before, gone, repeats = number // 4, number // 2 % 2, number % 2
                chance = np.minimum(before / (m - gone), 1)
                with np.errstate(divide="ignore"):
                    log_weight = log_weight + counts[number] * np.log(
                        chance if repeats else 1 - chance
                    )
        given += wrong[:, k] & ~earlier
    weight = np.exp(log_weight - log_weight.max())
    return float(weight @ m / weight.sum())


def belief_policy(
    distribution: LearntAnswers, answers: Int[np.ndarray, "question answer"], token_price: float
) -> tuple[Int[np.ndarray, " question"], Int[np.ndarray, " question"]]:
    """Position of the last answer asked for, and the number of the answer returned.

    With b the belief in the last answer and B that in the most probable one, revise once more iff
    for some j

        pi + (b - pi) r^j - B > token_price * (tokens of the next j rounds).

    Args:
        distribution: how answers come about.
        answers: numbered in order of first appearance; -1 for none.
        token_price: price of a token in right answers.

    Reference: docs/theory.md C1 and C3.
    """
    questions, size = answers.shape
    numbers = np.arange(size + 1)
    spent = np.append(0.0, np.cumsum(distribution.round_tokens * token_price))
    log = np.zeros((questions, size + 1))
    last = np.full(questions, size - 1)
    returned = np.full(questions, -1)
    going = np.ones(questions, dtype=bool)
    seen, unread = np.zeros(questions, int), np.zeros(questions, bool)
    for k in range(size):
        now = answers[:, [k]]
        log = log + np.log(
            np.maximum(_chance(distribution, numbers, now, answers[:, [k - 1]], k), _IMPOSSIBLE)
        )
        seen, unread = np.maximum(seen, now[:, 0] + 1), unread | (now[:, 0] < 0)
        each = np.where(numbers[:-1] < seen[:, None], log[:, :-1], -np.inf)
        with np.errstate(divide="ignore"):
            others = log[:, -1] + np.log(
                np.maximum(distribution.wrong_answers + 1 - seen - unread, 0)
            )
        belief = np.exp(each - special.logsumexp(np.column_stack([each, others]), axis=1)[:, None])
        best = belief.argmax(axis=1)
        top = belief[np.arange(questions), best]
        in_last = np.where(
            now[:, 0] >= 0, belief[np.arange(questions), np.maximum(now[:, 0], 0)], 0
        )
        cost = spent[k + 1 :] - spent[k]
        gain = _later(distribution, in_last, size - 1 - k) - top[:, None] - cost
        stops = going & ~(gain > _NOISE).any(axis=1)
        last, returned = np.where(stops, k, last), np.where(stops & (top > 0), best, returned)
        going &= ~stops
    return last, returned


def _chance(
    distribution: LearntAnswers,
    numbers: Int[np.ndarray, " number"],
    now: Int[np.ndarray, "question 1"],
    before: Int[np.ndarray, "question 1"],
    k: int,
) -> Float[np.ndarray, "question number"]:
    """Probability of an answer given the one before, if answer number j is right, at [j]."""
    right, m = now == numbers, distribution.wrong_answers
    if k == 0:
        return np.where(right, distribution.p0, (1 - distribution.p0) / m)
    kept = np.where(now == before, distribution.keep_wrong, (1 - distribution.keep_wrong) / (m - 1))
    from_right = np.where(right, 1 - distribution.p_ci, distribution.p_ci / m)
    from_wrong = np.where(right, distribution.p_ic, (1 - distribution.p_ic) * kept)
    return np.where(before == numbers, from_right, from_wrong)


def _later(
    distribution: LearntAnswers, belief: Float[np.ndarray, " question"], rounds: int
) -> Float[np.ndarray, "question round"]:
    """Probability that the answer 1, 2, ... rounds later is right."""
    found = np.empty((len(belief), rounds))
    for j in range(rounds):
        belief = belief * (1 - distribution.p_ci) + (1 - belief) * distribution.p_ic
        found[:, j] = belief
    return found
