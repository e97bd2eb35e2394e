"""Every result of docs/theory.md as a claim that exact arithmetic and simulation can refute."""

from msjax.verify import beliefs, chain, hybrid, loops, populations, scores, trajectories, votes
from msjax.verify.claim import Claim

__all__ = ["CLAIMS"]

CLAIMS: tuple[Claim, ...] = tuple(
    sorted(
        (
            *chain.CLAIMS,
            *trajectories.CLAIMS,
            *hybrid.CLAIMS,
            *populations.CLAIMS,
            *beliefs.CLAIMS,
            *scores.CLAIMS,
            *votes.CLAIMS,
            *loops.CLAIMS,
        ),
        key=lambda claim: (claim.section[0], int(claim.section[1:])),
    )
)
