"""OptPO's Bayesian sequential test: stop when the votes say who is right, as the model has it.

A vote falls on the right answer with probability `p_right` and on each wrong one with `p_wrong`
(docs/theory.md E1). Answers are numbered as they appear, so one rate serves all wrong answers.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from msjax.errors import require, require_uncertain
from msjax.rules.protocol import StoppingRule
from msjax.rules.votes import Standing, Votes, counting_rule, vote_margin
from msjax.theory.voting import margin_needed

__all__ = ["optpo", "optpo_posterior"]

Number = Real[Array, ""] | float


def optpo(
    budget: int, p_right: Number, p_wrong: Number, threshold: Number = 20.0, min_samples: int = 1
) -> StoppingRule:
    """Stop when the Bayes factor of leader against runner-up reaches `threshold`.

    It is (p_right / p_wrong)^(v_1 - v_2), so the rule is a vote margin,
    ceil(log threshold / log(p_right / p_wrong)); if p_right <= p_wrong votes are no evidence and
    the budget is spent.

    Args:
        budget: M, the most answers.
        p_right: probability that a vote falls on the right answer, in (0, 1).
        p_wrong: probability that it falls on one given wrong answer, in (0, 1).
        threshold: Bayes factor wanted, > 1.
        min_samples: answers wanted in any case, at most `budget` (those the policy update keeps).

    Raises:
        InputError: a budget < 1, not 1 <= min_samples <= budget, a probability outside (0, 1), or a
            threshold <= 1.

    Reference: OptPO (arXiv 2512.02882); docs/theory.md E1 and E3.
    """
    return vote_margin(budget, margin_needed(threshold, p_right, p_wrong), min_samples)


def optpo_posterior(
    budget: int,
    p_right: Number,
    p_wrong: Number,
    classes: Int[Array, ""] | int,
    confidence: Number = 0.95,
    min_samples: int = 1,
) -> StoppingRule:
    """Stop when the posterior of the leader reaches `confidence`; it is the belief reported.

    P(H_L | votes) = 1 / (1 + sum_{j != L} (p_wrong / p_right)^(v_L - v_j)) over all answers that
    could be right, also those without a vote.

    Args:
        budget: as for `optpo`.
        p_right: as for `optpo`.
        p_wrong: as for `optpo`.
        min_samples: as for `optpo`.
        classes: m, answers that could be right, >= 2. If more than m appear they are all counted.
        confidence: probability wanted, in (0, 1).

    Raises:
        InputError: as for `optpo`; fewer than two classes, p_right + (classes - 1) p_wrong above 1,
            or a confidence outside (0, 1).

    Reference: OptPO (arXiv 2512.02882); docs/theory.md E2, `msjax.theory.voting.leader_posterior`.
    """
    require_uncertain("p_right", p_right)
    require_uncertain("p_wrong", p_wrong)
    require_uncertain("confidence", confidence)
    require("classes", classes, lambda x: x >= 2, "give the number of possible answers, >= 2")
    require(
        "p_right + (classes - 1) p_wrong",
        p_right + (classes - 1) * p_wrong,
        lambda x: x < 1 + 1e-5,
        "give as p_wrong the probability of one given wrong answer, not of all together",
    )
    per_vote = jnp.log(p_wrong / jnp.asarray(p_right, jnp.result_type(float)))

    def judge(votes: Votes, now: Standing) -> tuple[Bool[Array, ""], Float[Array, ""]]:
        seen = votes.counts > 0
        odds = jnp.sum(jnp.where(seen, jnp.exp((now.first - votes.counts) * per_vote), 0))
        silent = jnp.maximum(classes - jnp.maximum(jnp.sum(seen), 1), 0)
        others = odds - (now.first > 0) + silent * jnp.exp(now.first * per_vote)
        belief = 1 / (1 + others)
        return belief >= confidence, belief

    return counting_rule(budget, judge, min_samples)
