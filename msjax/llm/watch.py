"""What is watched while a rule decides, and when it is trusted no longer."""

from dataclasses import dataclass

from msjax.data.trajectory import Trajectory
from msjax.decision.monitor import PromiseMonitor, audited
from msjax.evaluate.paired import right_after
from msjax.llm.drift import RateMonitor

__all__ = ["Promise", "Watch"]


class Promise:
    """Whether a rule loses no more accuracy than was accepted, watched on a share of the questions.

    On these the rule is followed, and asking goes on to the end of the budget, so that what it
    returned is compared with what all rounds, or the majority of all samples, would have.

    Args:
        eps: loss of accuracy that is accepted, in (0, 1).
        share: of the questions that are looked at, see `msjax.decision.monitor.audited`.

    Attributes:
        monitor: rings, with probability at most .01 ever, while the promise holds.
    """

    def __init__(self, eps: float, share: float) -> None:
        self.monitor = PromiseMonitor(eps)
        self._share = share

    def audits(self, question_id: str) -> bool:
        """Whether the question is one of those looked at."""
        return not self.monitor.broken and audited(question_id, self._share)

    def add(self, run: Trajectory, rounds: int) -> bool:
        """One more run; whether it is the one that broke the promise."""
        if not self.audits(run.question_id) or run.revisions < rounds:
            return False
        return self.monitor.add(float(run.right) - float(right_after(run, rounds)))


@dataclass(frozen=True)
class Watch:
    """What is watched of the runs of one benchmark.

    Attributes:
        rates: whether they are still those of the pilot that the rule learnt from.
        promise: of accuracy, that the rule was given with.
    """

    rates: RateMonitor | None = None
    promise: Promise | None = None

    @property
    def alarmed(self) -> bool:
        """Whether the rule is trusted no longer, so that everything is asked."""
        drifted = self.rates is not None and bool(self.rates.alarms)
        return drifted or (self.promise is not None and self.promise.monitor.broken)

    def audits(self, question_id: str) -> bool:
        """Whether a question is asked to the end whatever the rule says."""
        return self.promise is not None and self.promise.audits(question_id)

    def add(self, run: Trajectory, rounds: int) -> list[str]:
        """One more run of at most so many revisions, or samples after the first.

        Returns:
            What it brought to light, a sentence each.
        """
        found = []
        for drift in self.rates.add(run) if self.rates is not None else ():
            found.append(
                f"{drift.rate} was {drift.pilot:.2f} in the pilot and is {drift.live:.2f} after "
                f"{drift.questions} questions (by chance: at most {drift.p_value:.1g}); the "
                "remaining questions are asked for all rounds"
            )
        if self.promise is not None and self.promise.add(run, rounds):
            monitor = self.promise.monitor
            found.append(
                f"the rule loses more accuracy than was accepted ({-monitor.mean:.3f} on "
                f"{monitor.questions} questions looked at); the remaining questions are asked for "
                "everything"
            )
        return found
