"""A recorded run: what is left to ask is asked, what is finished is on disk."""

import hashlib
import json
import logging
import math
import reprlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from msjax.data.details import Details
from msjax.data.json_lines import LineFile
from msjax.data.messages import FAILED, FINISHED, REJECTED, TOO_LONG, UNASKED, Completion, Score
from msjax.data.store import check_settings, resume
from msjax.data.trajectory import Trajectory
from msjax.data.usage import uncached_tokens
from msjax.errors import InputError
from msjax.evaluate.summary import ending_notes
from msjax.llm.answers import jitted
from msjax.llm.conversation import refine
from msjax.llm.engine import Conversation, Engine
from msjax.llm.judge import Judge, Verdict
from msjax.llm.scores import Scorer, token_logprob
from msjax.llm.watch import Watch
from msjax.rules.fixed import fixed_rounds, self_consistency
from msjax.rules.protocol import StoppingRule
from msjax.tasks.registry import BENCHMARKS, Question, Task

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunPlan:
    """What to ask.

    Attributes:
        model: name of the model, as recorded.
        start: first question of each benchmark.
        count: questions of each; None takes 40, or all that a smaller benchmark holds.
        rounds: most refinement rounds per question, or samples after the first.
        seed: of all sampling.
        settings: what every line of the file must have been recorded with.
        parallel: whether answers are independent samples, not revisions.
        longer: whether they have a larger limit of tokens than those they are compared with.
        sources: of benchmarks by name, the file or function they come from.
        learnt: of benchmarks by name, the identity of the rule, see `LiveRule`.
    """

    model: str
    start: int
    count: int | None
    rounds: int
    seed: int
    settings: dict[str, str | int | float | None]
    parallel: bool = False
    longer: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)
    learnt: Mapping[str, str] = field(default_factory=dict)


def record_run(
    path: Path,
    plan: RunPlan,
    rules: Mapping[str, StoppingRule],
    load_engine: Callable[[], Engine],
    watch: Mapping[str, Watch] | None = None,
    benchmarks: Mapping[str, Task] = BENCHMARKS,
    score: Scorer | None = token_logprob,
    begun: Mapping[tuple[str, str], Trajectory] | None = None,
    texts: bool = True,
    judge: Judge | None = None,
) -> list[Trajectory]:
    """Record the planned questions of every benchmark in `rules`, resuming what `path` holds.

    The engine is loaded only if something is left to ask. Questions already in the file are not
    asked again; those beyond the plan stay in the file but are not returned. What is watched of a
    benchmark is given every run; once it raises an alarm the remaining questions of the benchmark
    are asked for all rounds, as the rule may no longer be right for them. Questions in `begun`, by
    benchmark and id, go on from the answers that these runs have. A judge says of every answer
    whether it is accepted; where `score` is None its log-odds are the score. What engine and judge
    have to say (`notes`) and how answers ended is said once, at the end.

    Returns:
        The trajectories of the planned questions, benchmark by benchmark, in stream order. Without
        `texts` they have of each completion, which `path` holds, no more than its first character,
        so that memory does not depend on how much a model writes.

    Raises:
        InputError: no benchmark, an unknown one, one with too few questions, count < 1, start < 0,
            rounds < 0, or a file recorded with other settings.
    """
    if not rules:
        raise InputError(f"no benchmark was named; known are {', '.join(benchmarks)}")
    if plan.count is not None and plan.count < 1:
        raise InputError(f"questions = {plan.count}: ask at least 1 question per benchmark")
    if plan.start < 0:
        raise InputError(f"start = {plan.start}: must be 0 or more")
    if plan.rounds < 0:
        raise InputError(f"rounds = {plan.rounds}: must be 0 or more")
    wanted = {}
    for name in rules:
        if name not in benchmarks:
            raise InputError(f"benchmark {name!r} is unknown; known are {', '.join(benchmarks)}")
        wanted[name] = benchmarks[name].questions(plan.start, plan.count)
    watched = watch or {}
    if plan.parallel and any(one.rates is not None for one in watched.values()):
        raise InputError("watch: samples are no revisions, so their rates cannot be followed")
    now = {(name, q.id): q for name, questions in wanted.items() for q in questions}
    compared = {
        name: {"prompts": prompts_hash(benchmarks[name]), "scorer": benchmarks[name].scorer.name}
        | ({"learnt": plan.learnt[name]} if name in plan.learnt else {})
        for name in rules
    }

    kept: dict[str, dict[str, str | int | float | None]] = {
        name: plan.settings
        | compared[name]
        | ({"source": plan.sources[name]} if name in plan.sources else {})
        for name in rules
    }

    def unchanged(run: Trajectory) -> None:
        _check_question(path, run, now.get((run.benchmark, run.question_id)))
        _check_known(path, run, compared.get(run.benchmark, {}))

    with resume(
        path,
        model=plan.model,
        settings=plan.settings,
        learnt=_LEARNT,
        check=unchanged,
        keep=_Kept(now, texts),
    ) as writer:
        for run in writer.lines:
            if run.benchmark in watched:
                watched[run.benchmark].add(run, plan.rounds)
        done = {(run.benchmark, run.question_id) for run in writer.lines}
        todo = {
            name: [q for q in questions if (name, q.id) not in done]
            for name, questions in wanted.items()
        }
        if any(todo.values()):
            total = sum(map(len, wanted.values()))
            left = sum(map(len, todo.values()))
            engine = load_engine()
            learnt = dict(getattr(engine, "settings", {}))
            for run in writer.lines:
                _check_known(path, run, learnt)
            with tqdm(
                total=total, initial=total - left, unit="question", desc=path.name, disable=None
            ) as bar:
                asked = {name: len(questions) for name, questions in wanted.items()}
                finish = _Progress(writer, bar, asked, watched, plan.rounds)
                everything = self_consistency if plan.parallel else fixed_rounds
                all_of_them = jitted(everything(plan.rounds + plan.parallel))
                stepped = {name: jitted(rule) for name, rule in rules.items()}

                def conversations() -> Iterator[Conversation]:
                    for name, questions in todo.items():
                        for question in questions:
                            alarmed = name in watched and watched[name].alarmed
                            yield refine(
                                benchmarks[name],
                                question,
                                all_of_them if alarmed else stepped[name],
                                model=engine.name,
                                seed=plan.seed,
                                rounds=plan.rounds,
                                settings=kept[name] | learnt,
                                finish=finish,
                                score=score,
                                parallel=plan.parallel,
                                audit=name in watched and watched[name].audits(question.id),
                                given=completions((begun or {}).get((name, question.id))),
                                judged=judged((begun or {}).get((name, question.id))),
                                judge=judge,
                                longer=plan.longer,
                            )

                try:
                    engine.converse(conversations())
                finally:
                    for whose in (engine, judge):
                        for note in getattr(whose, "notes", ()):
                            LOG.warning(note)
        for note in ending_notes([Details.of(writer.lines)] if writer.lines else []):
            LOG.warning(note)
        if judge is not None and (note := _unjudged(writer.lines)):
            LOG.warning(note)
        recorded = {(run.benchmark, run.question_id): run for run in writer.lines}
    return [recorded[name, q.id] for name, questions in wanted.items() for q in questions]


def _unjudged(runs: Sequence[Trajectory]) -> str | None:
    """On how many answers the judge gave no verdict, in words; None if on all it did."""
    verdicts = [
        verdict
        for run in runs
        for verdict, finish in zip(run.verdicts, run.finish, strict=True)
        if finish not in UNASKED
    ]
    lacking = verdicts.count(None)
    if not lacking:
        return None
    return (
        f"{lacking:,} of {len(verdicts):,} answers have no verdict, since the judge said neither "
        "yes nor no, or failed; a rule takes them as not accepted"
    )


def completions(run: Trajectory | None) -> Sequence[Completion]:
    """What the model wrote in a run, as `msjax.llm.conversation.refine` takes it; none for None."""
    if run is None:
        return ()
    return [
        Completion(
            text,
            token_logprob=math.nan,
            entropy=math.nan,
            finished=finish is None or finish.lower() in FINISHED,
            usage=usage,
            score=Score(math.nan if score is None else score, usage.verifier),
            finish=finish,
        )
        for text, usage, score, finish in zip(
            run.completions, run.tokens, run.scores, run.finish, strict=True
        )
    ]


def judged(run: Trajectory | None) -> Sequence[Verdict]:
    """Verdicts in a run, as `msjax.llm.conversation.refine` takes them; none without a judge."""
    if run is None or run.settings.get("judge") is None:
        return ()
    return [
        Verdict(accepted, votes=votes)
        for accepted, votes in zip(run.verdicts, run.votes, strict=True)
    ]


class _Kept:
    """What is kept in memory of a run: nothing twice, and completions only where they are wanted.

    Args:
        questions: by benchmark and id.
        texts: whether completions are kept.
    """

    def __init__(self, questions: Mapping[tuple[str, str], Question], texts: bool) -> None:
        self._questions, self._texts = questions, texts
        self._settings: dict[str, Any] = {}

    def __call__(self, run: Trajectory) -> Trajectory:
        known = self._questions.get((run.benchmark, run.question_id))
        text = known.text if known is not None and known.text == run.question else run.question
        if run.settings != self._settings:
            self._settings = run.settings
        shared = {"question": text, "settings": self._settings}
        # One character says whether there was any text.
        said = run.completions if self._texts else tuple(text[:1] for text in run.completions)
        return run.model_copy(update=shared | {"completions": said})


_LEARNT = ("source", "prompts", "scorer", "learnt", "chat_template", "chat_date")
"""Settings that follow from others, and that older files do not have."""


def prompts_hash(benchmark: Task) -> str:
    """A short SHA-256 of all that a benchmark says beside the question and the answer."""
    first, again = benchmark.conversation("QUESTION"), benchmark.revision("QUESTION", "ANSWER")
    said = [first, again, benchmark.new_conversation]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _check_question(path: Path, run: Trajectory, now: Question | None) -> None:
    """Raises InputError where a question's name stands for another question by now."""
    if now is None:
        return
    for name, recorded, asked in (
        ("question", run.question, now.text),
        ("gold", run.gold, now.gold),
    ):
        if recorded != asked:
            raise InputError(
                f"{path}: {name} of question_id {run.question_id!r} of {run.benchmark!r} was "
                f"recorded as {reprlib.repr(recorded)} and is {reprlib.repr(asked)} now; the "
                "benchmark has changed, so write to another file"
            )


def _check_known(path: Path, run: Trajectory, settings: Mapping[str, Any]) -> None:
    """Raises InputError where a line was recorded with other settings than these, if with any."""
    known = {name: value for name, value in settings.items() if name in run.settings}
    check_settings(path, {name: run.settings[name] for name in known}, known)


_UNASKED: dict[str | None, str] = {
    TOO_LONG: "longer than the model's context",
    REJECTED: "refused by the server, which answers others,",
    FAILED: "fails at the server, which answers others,",
}


class _Progress:
    """Writes a finished trajectory, shows accuracy and tokens so far, warns of drift.

    Where nobody watches, in a pipe or a log, a message per benchmark takes the place of the bar.
    """

    def __init__(
        self,
        writer: LineFile[Trajectory],
        bar: tqdm,
        asked: Mapping[str, int],
        watched: Mapping[str, Watch],
        rounds: int,
    ) -> None:
        self._writer, self._bar, self._asked = writer, bar, asked
        self._watched, self._rounds = watched, rounds
        self._runs, self._right = Counter[str](), Counter[str]()
        self._tokens: defaultdict[str, float] = defaultdict(float)
        for run in writer.lines:
            self._count(run)

    def __call__(self, run: Trajectory) -> None:
        self._writer.append(run)
        self._count(run)
        if (why := run.finish[-1]) in _UNASKED:
            LOG.warning(
                f"{run.benchmark}, question {run.question_id}: {_UNASKED[why]} from round "
                f"{sum(one not in _UNASKED for one in run.finish)} on; what it was not asked "
                "counts as unanswered"
            )
        if run.benchmark in self._watched:
            for found in self._watched[run.benchmark].add(run, self._rounds):
                LOG.warning(f"{run.benchmark}: {found}")
        so_far = _so_far(self._runs.total(), self._right.total(), sum(self._tokens.values()))
        self._bar.set_postfix_str(so_far, refresh=False)
        self._bar.update()
        name = run.benchmark
        if self._bar.disable and self._runs[name] == self._asked.get(name):
            so_far = _so_far(self._runs[name], self._right[name], self._tokens[name])
            LOG.info(f"{name}: {self._runs[name]} questions, {so_far}")

    def _count(self, run: Trajectory) -> None:
        self._runs[run.benchmark] += 1
        self._right[run.benchmark] += run.right
        self._tokens[run.benchmark] += uncached_tokens(run.tokens)


def _so_far(runs: int, right: int, tokens: float) -> str:
    used = "unknown" if math.isnan(tokens) else f"{tokens:,.0f}"
    return f"accuracy {right / runs:.2f}, {used} tokens"
