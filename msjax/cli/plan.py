"""`msjax plan`: how many more labelled questions and rounds to record."""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from msjax.cli.output import OutputFile, Seed, begin, prepare_sampling
from msjax.cli.prices import Prices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msjax.data.runs import Runs
    from msjax.decision import design as planner

_WIDTH = 0.1
_TITLES = {
    "limit": "the accuracy after many rounds",
    "upper": "the upper bound after many rounds",
    "accuracy": "the accuracy after the last round considered",
}
_DECISIONS = {"first_round": "the first round helps", "limit": "many rounds help"}


@dataclass(frozen=True)
class Plan(Prices):
    """Say how many more questions and rounds to record, from a pilot that was recorded already.

    Each design is judged by simulating what it would show: how wide the 90 % interval will be, how
    probable a wrong decision is, and what the labels are worth when they are used to choose the
    number of rounds.

    Example: msjax plan pilot.jsonl --width 0.1 --questions 50 100 200 --rounds 3 6
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """JSON Lines files written by `msjax run`; pooled by benchmark name."""
    model: str = "pooled"
    """Model of the runs, as in `msjax fit --model`; auto chooses as that does."""
    benchmark: str | None = None
    """Plan for this benchmark only."""
    width: float | None = None
    """Wanted width of the 90 % interval of the target; 0.1 if --error is not given either."""
    error: float | None = None
    """Wanted probability that the decision is wrong, in place of a width."""
    target: Literal["limit", "upper", "accuracy"] = "limit"
    """What the interval is of: the accuracy of refining everything in the limit, the upper bound in
    the limit, or the accuracy after max(10, rounds observed) rounds."""
    decision: Literal["first_round", "limit"] = "first_round"
    """What --error is of: whether the first round helps, or many rounds."""
    questions: tuple[int, ...] = (1, 25, 50, 100, 200, 400)
    """Numbers of new questions to try; 1 says what one more labelled question is worth."""
    rounds: tuple[int, ...] = (3, 6)
    """Numbers of rounds to try."""
    seed: Seed = 0
    """Seed of all random draws."""
    json: OutputFile | None = None
    """Write everything that is printed here as JSON."""

    def run(self) -> int:
        """Fit, plan, print, write; 0 when done, 1 when the sampler did not converge."""
        prepare_sampling()
        from msjax.cli.output import write_json
        from msjax.decision.pilot import pilots
        from msjax.decision.strategies import advise, strategies_of
        from msjax.errors import InputError, require
        from msjax.posterior.fits import NotConvergedError

        if self.width is not None and self.error is not None:
            raise InputError(
                f"--width is {self.width} and --error is {self.error}; ask for one of them"
            )
        require("--width", self._width, lambda x: (x > 0) & (x < 1), "give a width in (0, 1)")
        if self.error is not None:
            require(
                "--error", self.error, lambda x: (x > 0) & (x < 0.5), "give a chance in (0, .5)"
            )
        worth, price = self.worth_and_price()
        strategies = {}
        traces = any(group.protocol == "prefix" for group in self._recorded.groups)
        for pilot in () if traces else pilots(self._recorded):
            if self.benchmark not in (None, pilot.name):
                continue
            strategies[pilot.name] = {one.name: one.lacks for one in strategies_of(pilot)}
            print(f"{pilot.name}: {advise(pilot)}")
        try:
            plans = self._plans(worth, price or 0.0)
        except NotConvergedError as error:
            print(f"msjax plan: {error}", file=sys.stderr)
            return 1
        free = "tokens are free, as no price is given"
        priced = free if price is None else f"an uncached token costs {price:g}"
        print(f"model {self.model}, seed {self.seed}; a right answer is worth {worth:g}, {priced}")
        report = {}
        for name, plan in plans.items():
            chosen = plan.smallest(self._enough)
            sentence = self._sentence(plan, chosen)
            report[name] = {**vars(plan), "smallest": chosen, "sentence": sentence}
            _print_plan(name, plan, sentence)
        if self.json:
            options = {x: getattr(self, x) for x in ("model", "seed", "decision")}
            options |= {"worth": worth, "price": price}
            wanted = {"error": self.error} if self.error else {"width": self._width}
            write_json(
                self.json,
                {**options, "wanted": wanted, "benchmarks": report, "strategies": strategies},
            )
        return 0

    @property
    def _width(self) -> float:
        return _WIDTH if self.width is None else self.width

    def _plans(self, worth: float, price: float) -> "dict[str, planner.Plan]":
        import jax
        from tqdm import tqdm

        from msjax.decision.design import plan
        from msjax.posterior.compare import leading, weigh
        from msjax.posterior.fits import fit_model
        from msjax.posterior.models import find_model
        from msjax.posterior.posterior import AUTO

        model = None if self.model == AUTO else find_model(self.model)
        found = {}
        every = self._recorded.groups
        revised = [group for group in every if group.protocol == "sequential"]
        groups = self._select(revised or every)
        with tqdm(groups, unit="benchmark", disable=None) as bar:
            for b, count in enumerate(bar):
                bar.set_postfix_str(count.name)
                begin(f"planning {count.name}")
                fit_key, key = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), b))
                found[count.name] = plan(
                    fit_model(count, model, fit_key) if model else leading(weigh(count, fit_key)),
                    key,
                    questions=self.questions,
                    rounds=self.rounds,
                    target=self.target,
                    value=worth,
                    price=price,
                )
        return found

    @cached_property
    def _recorded(self) -> "Runs":
        from msjax.data.importers.reading import read

        return read(*self.runs)

    def _select(self, counts: "Sequence[Runs]") -> "Sequence[Runs]":
        from msjax.errors import InputError

        names = [count.name for count in counts]
        if self.benchmark is None:
            return counts
        if self.benchmark not in names:
            raise InputError(f"--benchmark is {self.benchmark!r}; choose from {', '.join(names)}")
        return [counts[names.index(self.benchmark)]]

    def _enough(self, design: "planner.Design") -> bool:
        if self.error is None:
            return design.width.mean <= self._width
        return self._error_of(design) <= self.error

    def _error_of(self, design: "planner.Design") -> float:
        from msjax.errors import InputError

        found = design.first_round_error if self.decision == "first_round" else design.limit_error
        if found is None:
            raise InputError(
                f"--decision is {self.decision} but model {self.model} says nothing of the limit; "
                "choose first_round or another model"
            )
        return found.mean

    def _figure(self, design: "planner.Design") -> float:
        return design.width.mean if self.error is None else self._error_of(design)

    def _sentence(self, plan: "planner.Plan", chosen: "planner.Design | None") -> str:
        """The answer in words."""
        if self.error is None:
            wish = f"a 90 % interval of {_TITLES[self.target]} of width {self._width:g}"
            figure = "width"
        else:
            wish = (
                f"an error of at most {self.error:g} in saying whether {_DECISIONS[self.decision]}"
            )
            figure = "error"
        if chosen is plan.now:
            return f"For {wish}, the runs recorded already suffice ({self._figure(chosen):.3f})."
        if chosen is not None:
            return (
                f"For {wish}, record {chosen.questions} more questions with {chosen.rounds} rounds "
                f"each (about {chosen.tokens:,.0f} tokens): expected {figure} "
                f"{self._figure(chosen):.3f}, now {self._figure(plan.now):.3f}."
            )
        reliable = [design for design in plan.designs if design.reliable]
        if not reliable:
            return (
                f"For {wish}, none of the designs tried can be judged from so few runs; try fewer "
                "questions, record them, and plan again."
            )
        best = min(reliable, key=self._figure)
        more = ""
        if len(reliable) < len(plan.designs):
            more = " Those marked ! cannot be judged yet: record a smaller one and plan again."
        return (
            f"For {wish}, none of the designs tried is enough; the best, {best.questions} "
            f"questions with {best.rounds} rounds, is expected to give {self._figure(best):.3f}."
            + more
        )


def _print_plan(name: str, plan: "planner.Plan", sentence: str) -> None:
    from msjax.cli.tables import table

    header = (
        "new questions", "rounds", "tokens", "width", "wrong, first round", "wrong, limit",
        "EVSI", "per question", "Pareto k",
    )  # fmt: skip
    print(f"\n{name}: {sentence}")
    print(table(header, [_row(design) for design in (plan.now, *plan.designs)]))
    print(
        f"width: of the 90 % interval of {_TITLES[plan.target]}; wrong: probability of a wrong "
        "decision whether the\nfirst round helps, or many rounds; EVSI: gain per question answered "
        "later from choosing the number of rounds with\nthe new labels (at most "
        f"{_plus_minus(plan.evpi, 4)}, that of knowing the chain). Means over futures +- Monte "
        "Carlo error."
    )


def _row(design: "planner.Design") -> tuple[str, ...]:
    mark = "" if design.reliable else " !"
    each = design.evsi.mean / design.questions if design.questions else 0.0
    limit = design.limit_error
    return (
        f"{design.questions}{mark}",
        f"{design.rounds}",
        f"{design.tokens:,.0f}",
        _plus_minus(design.width),
        _plus_minus(design.first_round_error),
        "no limit" if limit is None else _plus_minus(limit),
        _plus_minus(design.evsi, 4),
        f"{each:.1g}",
        "exact" if design.pareto_k is None else f"{design.pareto_k:.2f}",
    )


def _plus_minus(found: "planner.Expected", digits: int = 3) -> str:
    return f"{found.mean:.{digits}f} +- {found.standard_error:.{digits}f}"
