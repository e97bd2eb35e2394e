"""`msjax run`: a model answers and revises, a rule says when to stop, all is recorded."""

import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from msjax._io import write_text
from msjax.cli.output import OutputFile, Seed
from msjax.cli.prices import Prices
from msjax.errors import InputError

if TYPE_CHECKING:
    from msjax.data.trajectory import Trajectory
    from msjax.llm.drift import RateMonitor
    from msjax.llm.judge import Judge
    from msjax.llm.live_rule import LiveRule
    from msjax.llm.scores import Scorer
    from msjax.llm.watch import Promise, Watch
    from msjax.posterior.store import SavedPosterior
    from msjax.rules.markovscale import RoundPlan
    from msjax.rules.protocol import StoppingRule
    from msjax.rules.spec import RuleSpec
    from msjax.tasks.registry import Task


_ARITHMETIC = ("arithmetic-easy", "arithmetic-medium", "arithmetic-hard")


@dataclasses.dataclass(frozen=True)
class Run(Prices):
    """Ask questions, let the model revise its answers, record every trajectory.

    Lines are written as questions finish; the same command resumes an interrupted run. If --rule is
    not fixed, the same questions are also run for all rounds, and the two are compared. With a
    rule to --shadow, all questions are run for all rounds, and it is logged what it would have
    done. Where a --pilot is given its rates are followed as answers come in; if they drift, that is
    said and the remaining questions are asked for all rounds. With --samples the same holds of
    samples in place of rounds, but for the rates.

    Example: msjax run pilot.jsonl --questions 50 --rounds 3

    Example: msjax run samples.jsonl --questions 50 --samples 16
    """

    resumes = True

    out: Annotated[OutputFile, tyro.conf.Positional]
    """JSON Lines file to write (or to resume)."""

    benchmarks: tuple[str, ...] = ()
    """Names of the benchmarks to ask, or files of questions (.jsonl, .csv, .json, .parquet), or
    module:function for a task of your own; a local model is asked arithmetic if none is named."""

    scorer: str | None = None
    """How answers from files are read and graded: math (the default), number, choice, exact, or
    module:function."""

    fields: tuple[str, ...] = ()
    """Which fields of files hold what, such as question=prompt target=solution id=name."""

    template: str | None = None
    """Prompts, by name or from a file; default: the benchmark's own."""

    questions: int | None = None
    """Questions per benchmark; by default 40, or all that a smaller file holds."""

    start: int = 0
    """First question of each benchmark; start a fresh set where the pilot ended."""

    rounds: int = 3
    """Refinement rounds after the first answer (with a --rule: at most); not with --samples."""

    samples: int | None = None
    """Record this many independent samples of each question instead of rounds of revision; what is
    returned is the answer given most often. `msjax card` compares revising with samples at the same
    tokens."""

    pilot_for: Literal["strategies"] | None = None
    """Record all that a choice of strategy needs, in three files: OUT with all --rounds, and beside
    it --samples (by default twice as many as there are answers in OUT) and an answer of up to
    --longer tokens. First answers are shared. With a --judge, loops that end when it accepts can be
    compared too."""

    longer: int | None = None
    """Most tokens of a longer answer, for --pilot-for; default: twice --max-new-tokens."""

    rule: str = "fixed"
    """fixed: always --rounds revisions, or --samples. markovscale: gate and N* from --posterior or
    --pilot. card: what `msjax card` recommends, by --pilot. Any other rule of `msjax replay` for
    rounds, or for --samples, or module:function, by --pilot if it learns."""

    shadow: str | None = None
    """Rule that only watches, and learns from --pilot."""

    no_worse: float | None = None
    """Loss of accuracy, against asking for everything, that the --rule may cost: watched while it
    runs, on a share of the questions, in place of recording all of them a second time. Once more is
    lost, the remaining questions are asked for everything."""

    audit: float = 0.1
    """Share of the questions that --no-worse looks at."""

    posterior: Path | None = None
    """Posterior written by `msjax fit --out`, for --rule markovscale."""

    pilot: Path | None = None
    """Labelled runs with all --rounds or --samples, written by this command with --rule fixed."""

    pilot_model: str = "auto"
    """Model of the --pilot whose curve markovscale follows, as --model of `msjax fit`."""

    model: str | None = None
    """Hugging Face folder, GGUF file, or name of a model of `msjax weights` (default:
    SmolLM2-135M-Instruct); with --server, the name of a model it serves."""

    server: tuple[str, ...] = ()
    """URL of a server that speaks OpenAI's chat protocol, such as http://localhost:8000/v1; of
    several servers of the model the one that is loaded least is asked, and one that fails is left
    out. If they want a key, put that in the environment variable OPENAI_API_KEY."""

    timeout: float = 600.0
    """Seconds a server may take for one answer, before it is asked again."""

    patience: float = 120.0
    """Seconds after its first failure in which a request to a server is tried again."""

    concurrency: int = 32
    """Most requests to a server in flight; changes speed, not results."""

    thinking: bool = False
    """The server's chat template opens the thought with which an answer begins, as DeepSeek-R1's
    does: a text without its closing tag is no answer."""

    mesh: tuple[int, int] = (1, 1)
    """Devices the local model is spread over: data parallel, tensor parallel."""

    temperature: float = 0.7
    """Sampling temperature; 0 takes the most probable token."""

    top_p: float | None = None
    """Sample from the most probable tokens that hold this much probability; default: from all."""

    max_new_tokens: int | None = None
    """Most tokens per answer; default: 2048, and 16 for a local model on arithmetic alone."""

    score: str = "token_logprob"
    """Score of each answer: token_logprob (mean per token), confidence (its exponential, which
    lies in [0, 1], as rules that look at scores need), certainty (mean entropy, negated), reward
    (by --reward-model), or judge (log-odds of the --judge's yes, behind a server that gives
    log-probabilities)."""

    reward_server: str | None = None
    """URL of vLLM with a reward model, for --score reward, such as http://localhost:8001; its key,
    if any, in the environment variable REWARD_API_KEY."""

    reward_model: str | None = None
    """Name of the reward model, as its server calls it."""

    judge: str | None = None
    """Who says whether each answer is accepted, for rules such as until_accepted: self (the model
    that answers, asked in a conversation of its own), tests (the unit tests in each question's
    field "tests", on the answer's code), module:function for a judge of your own, or, with
    --judge-server, the name of a model."""

    judge_server: str | None = None
    """URL of a server that speaks OpenAI's chat protocol with the model --judge; its key, if any,
    in the environment variable JUDGE_API_KEY."""

    judge_template: str = "yes_no"
    """What a model that judges is asked: yes_no, json, or a text file with the words."""

    judge_votes: int = 1
    """How often the judge is asked of every answer."""

    judge_threshold: int | None = None
    """Of which so many must accept; default: more than half."""

    judge_temperature: float | None = None
    """Sampling temperature of a --judge behind a server; default: 0, and 0.7 for several votes."""

    batch_size: int = 40
    """Conversations that a local model decodes together; changes speed, not results."""

    seed: Seed = 0
    """Seed of all sampling; each question's key also depends on its name, on nothing else."""

    json: OutputFile | None = None
    """Also write the summary (and comparison) to this file, as JSON."""

    def run(self) -> int:
        """Run, report, return the exit status."""
        from msjax.cli.output import keep_compiled, write_json
        from msjax.cli.tables import comparison_table, summary_table
        from msjax.evaluate.paired import compare
        from msjax.evaluate.summary import summarise
        from msjax.llm.drift import RateMonitor
        from msjax.llm.watch import Promise, Watch

        keep_compiled()
        self._check()
        if self.no_worse is not None and self.rule == "fixed":
            raise InputError("--no-worse watches a --rule, and fixed asks for everything; name one")
        if self.pilot_for is not None:
            return self._record_strategies()
        if self.longer is not None:
            raise InputError("--longer is for --pilot-for strategies")
        if self.shadow is not None and self.rule != "fixed":
            raise InputError(f"--shadow watches runs of --rule fixed, not of {self.rule}")
        label, all_of_them = self._without_rule()
        fixed = dict.fromkeys(self._asked, all_of_them)
        result: dict[str, Any] = {"seed": self.seed, "rule": self.rule, "file": self.out}
        if self.samples is not None:
            result["samples"] = self.samples
        learnt = {} if self.rule == "fixed" else self._rules(self.rule)
        watched = self._rules(self.shadow) if self.shadow else {}
        plans = {name: rule.plan for name, rule in learnt.items() if rule.plan is not None}
        if plans:
            result["plans"] = {name: _plan_result(plan) for name, plan in plans.items()}
        monitors = {
            name: RateMonitor(runs, revisions=name not in learnt or not learnt[name].looks)
            for name, runs in ({} if self.samples else self._pilot).items()
        }
        promises: dict[str, Promise] = {}
        if learnt and self.no_worse is not None:
            promises = {name: Promise(self.no_worse, self.audit) for name in learnt}
        if learnt:
            for name, rule in learnt.items():
                print(f"{name}: {self.rule} {rule.says}")
            rules = {name: rule.rule for name, rule in learnt.items()}
            identities = {name: rule.identity for name, rule in learnt.items()}
            watch = {
                name: Watch(monitors.get(name), promises.get(name))
                for name in learnt
                if name in monitors or name in promises
            }
            recorded = self._record(self.out, self.rule, rules, watch, identities)
        else:
            watch = {name: Watch(monitor) for name, monitor in monitors.items()}
            recorded = self._record(self.out, label, fixed, watch)
        result["summary"] = summarise(recorded)
        print(summary_table(result["summary"]))
        if promises:
            result["promise"] = _promised(promises)
        elif learnt:
            full = self._record(full_file(self.out, label), label, fixed)
            result["comparison"] = compare(recorded, full, self._budget)
            print(comparison_table(result["comparison"]))
        if watched:
            result["shadow"] = self._shadow(watched, recorded)
        if monitors:
            result["drift"] = _drift(monitors)
        if self.json is not None:
            write_json(self.json, result)
        return 0

    def _record_strategies(self) -> int:
        """Rounds, samples and longer answers of the same questions, whose first answers are one."""
        from msjax.cli.output import write_json
        from msjax.cli.tables import summary_table
        from msjax.evaluate.summary import summarise
        from msjax.rules.fixed import fixed_rounds, self_consistency

        limit = 2 * self._longest if self.longer is None else self.longer
        if limit <= self._longest:
            raise InputError(
                f"--longer is {limit}; give more than the {self._longest} tokens of other answers"
            )
        if self.rule != "fixed" or self.shadow is not None or self.pilot is not None:
            raise InputError("--pilot-for records a pilot; leave --rule, --shadow and --pilot out")
        if self.temperature == 0:
            raise InputError("temperature = 0 makes all samples equal; give a higher --temperature")
        if self.rounds < 1:
            raise InputError(f"--rounds is {self.rounds}; give at least 1 to compare revisions")
        number = 2 * (self.rounds + 1) if self.samples is None else self.samples
        if number < 2:
            raise InputError(f"--samples is {number}; give at least 2 to compare votes")
        parts = {
            "rounds": (
                dataclasses.replace(self, samples=None),
                f"fixed: {self.rounds}",
                fixed_rounds(self.rounds),
            ),
            "samples": (
                dataclasses.replace(self, samples=number),
                f"samples: {number}",
                self_consistency(number),
            ),
            "longer": (
                dataclasses.replace(self, samples=None, rounds=0, max_new_tokens=limit),
                f"longer: {limit}",
                fixed_rounds(0),
            ),
        }
        begun: dict[tuple[str, str], Trajectory] = {}
        files, found = dict[str, Path](), dict[str, Any]()
        for name, (part, label, rule) in parts.items():
            files[name] = self.out if name == "rounds" else full_file(self.out, label)
            if name == "longer":
                begun = {key: run for key, run in begun.items() if _ended_itself(run)}
            recorded = part._record(
                files[name],
                label,
                dict.fromkeys(part._asked, rule),
                begun=begun,
                texts=name == "rounds",
                longer=name == "longer",
            )
            if name == "rounds":
                begun = {(run.benchmark, run.question_id): run.ended(1) for run in recorded}
            found[name] = {"file": files[name], "summary": summarise(recorded)}
            print(summary_table(found[name]["summary"]))
        if self.judge is None:
            print(
                "no --judge was asked: loops that revise or resample until one accepts are not "
                "among the strategies"
            )
        print(f"compare them: msjax card {' '.join(shlex.quote(str(x)) for x in files.values())}")
        if self.json is not None:
            write_json(self.json, {"seed": self.seed, **found})
        return 0

    def _check(self) -> None:
        """Raises InputError for options that the engine and rules would refuse much later."""
        from msjax.errors import require
        from msjax.llm.engine import Sampling
        from msjax.llm.live_rule import CARD

        for rule in (self.rule, self.shadow):
            if rule not in (None, "fixed", CARD):
                self._find(rule)
        for name in ("batch_size", "concurrency"):
            require(name, getattr(self, name), lambda x: x >= 1, "give at least 1")
        require("max_new_tokens", self._longest, lambda x: x >= 1, "give at least 1")
        if self.no_worse is not None:
            share = "give a number in (0, 1)"
            require("--no-worse", self.no_worse, lambda x: (x > 0) & (x < 1), share)
        require("--audit", self.audit, lambda x: (x > 0) & (x <= 1), "give a share in (0, 1]")
        require("patience", self.patience, lambda x: x >= 0, "give a number of seconds >= 0")
        require("timeout", self.timeout, lambda x: x > 0, "give a number of seconds > 0")
        Sampling(self.temperature, self.top_p)
        self.worth_and_price()
        _ = self._scorer, self._judge

    def _find(self, rule: str | None) -> "RuleSpec":
        from msjax.rules.registry import find_rule_for

        kind = "rounds" if self.samples is None else "samples"
        return find_rule_for(str(rule), self._budget + 1, kind, "this run")

    def _follows_curve(self, rule: str) -> bool:
        from msjax.llm.live_rule import CARD

        return rule != CARD and self._find(rule).from_curve

    def _without_rule(self) -> "tuple[str, StoppingRule]":
        """All rounds, or all samples, and what the file says of that."""
        from msjax.rules.fixed import fixed_rounds, self_consistency

        if self.samples is None:
            return f"fixed: {self.rounds}", fixed_rounds(self.rounds)
        if self.samples < 1:
            raise InputError(f"samples = {self.samples}: ask for at least 1 sample per question")
        if self.samples > 1 and self.temperature == 0:
            raise InputError("temperature = 0 makes all samples equal; give a higher --temperature")
        return f"samples: {self.samples}", self_consistency(self.samples)

    @cached_property
    def _asked(self) -> "dict[str, Task]":
        """The benchmarks by name."""
        from msjax.tasks.registry import find_task

        fields = dict(pair.partition("=")[::2] for pair in self.fields)
        found = [find_task(name, self.template, self.scorer, fields) for name in self._named]
        return {benchmark.name: benchmark for benchmark in found}

    @property
    def _named(self) -> tuple[str, ...]:
        """What is asked, as it was named."""
        if self.server and not self.benchmarks:
            raise InputError(
                "--benchmarks is missing; name what the model behind --server is to be asked: a "
                "file of questions, or module:function"
            )
        return self.benchmarks or _ARITHMETIC

    @property
    def _rows(self) -> int:
        """No more rows than conversations, since empty ones are computed too."""
        if self.questions is None or self.samples is not None:
            return self.batch_size
        multiple = self.mesh[0]
        most = -(-self.questions * len(self._asked) // multiple) * multiple
        return min(self.batch_size, most)

    @property
    def _longest(self) -> int:
        """Most tokens per answer."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return 16 if not self.server and set(self._named) <= set(_ARITHMETIC) else 2048

    @property
    def _budget(self) -> int:
        """Most answers after the first."""
        return self.rounds if self.samples is None else self.samples - 1

    @property
    def model_path(self) -> Path:
        """Folder or file of the local model that answers."""
        from msjax.llm.flax.weights import find_model

        return find_model(self.model)

    @property
    def model_name(self) -> str:
        """How the model is recorded."""
        if self.server:
            return str(self.model)
        from msjax.llm.flax import weights

        return weights.model_name(self.model_path)

    def _record(
        self,
        out: Path,
        label: str,
        rules: Mapping[str, "StoppingRule"],
        watch: "Mapping[str, Watch] | None" = None,
        identities: "Mapping[str, str] | None" = None,
        *,
        begun: "Mapping[tuple[str, str], Trajectory] | None" = None,
        texts: bool = False,
        longer: bool = False,
    ) -> "list[Trajectory]":
        from msjax.llm.record import RunPlan, record_run

        if self.server and self.model is None:
            raise InputError("--server needs --model NAME, as the server calls it")

        def load_engine() -> Any:
            if self.server:
                from msjax.llm.openai_engine import OpenAIEngine

                return OpenAIEngine(
                    self.server,
                    str(self.model),
                    api_key=os.environ.get("OPENAI_API_KEY") or "none",
                    concurrency=self.concurrency,
                    max_new_tokens=self._longest,
                    temperature=self.temperature,
                    top_p=self.top_p,
                    timeout=self.timeout,
                    patience=self.patience,
                    thinking=self.thinking,
                )
            from msjax.llm.flax.engine import FlaxEngine
            from msjax.llm.flax.sharding import device_mesh

            return FlaxEngine.load(
                self.model_path,
                batch_size=self._rows,
                max_new_tokens=self._longest,
                temperature=self.temperature,
                top_p=self.top_p,
                mesh=None if self.mesh == (1, 1) else device_mesh(*self.mesh),
                log_odds=self.score == "judge",
            )

        plan = RunPlan(
            model=self.model_name,
            start=self.start,
            count=self.questions,
            rounds=self._budget,
            seed=self.seed,
            parallel=self.samples is not None,
            longer=longer,
            sources={
                task.name: given
                for given, task in zip(self._named, self._asked.values(), strict=False)
                if given != task.name
            },
            learnt=identities or {},
            settings={
                "rule": label,
                "rounds": self.rounds if self.samples is None else None,
                "seed": self.seed,
                "template": self.template,
                "engine": "server" if self.server else None,
                "thinking": self.thinking or None,
                "temperature": self.temperature,
                "top_p": None if self.top_p == 1 else self.top_p,
                "max_new_tokens": self._longest,
                "audit": None if self.no_worse is None else self.audit,
                **self._signals,
            },
        )
        print(f"{out}: {label}, seed {self.seed}")
        tasks, score = self._asked, self._scorer
        return record_run(
            out,
            plan,
            rules,
            load_engine,
            watch,
            tasks,
            score,
            begun=begun,
            texts=texts,
            judge=self._judge,
        )

    @cached_property
    def _judge(self) -> "Judge | None":
        """What judges the answers."""
        from msjax.llm.judge import ITSELF, Itself, ServedJudge, judge_prompt, own_judge, voting

        votes = self.judge_votes, self._judge_threshold
        by_server = self.judge_server is not None or (
            self.judge == ITSELF and self.score == "judge" and bool(self.server)
        )
        if self.judge_server is not None and self.judge in (None, ITSELF):
            raise InputError("--judge-server needs --judge NAME, as the server calls the model")
        if self.judge_temperature is not None and not by_server:
            raise InputError("--judge-temperature is of a model behind --judge-server")
        if self.score == "judge" and not by_server and self.judge != ITSELF:
            raise InputError(
                "--score judge needs the log-probabilities of a model that judges: --judge self, "
                "or --judge NAME --judge-server URL"
            )
        if self.judge is None:
            if votes != (1, 1) or self.judge_template != "yes_no":
                raise InputError("--judge-votes and --judge-template are of a --judge; name one")
            return None
        prompt = judge_prompt(self.judge_template)
        if by_server:
            usual = 0.0 if self.judge_votes == 1 else 0.7
            heat = usual if self.judge_temperature is None else self.judge_temperature
            if heat == 0 and self.judge_votes > 1:
                raise InputError("--judge-temperature 0 makes all votes equal; give a higher one")
            own = self.judge_server is None
            key = os.environ.get("OPENAI_API_KEY" if own else "JUDGE_API_KEY") or "none"
            judge = ServedJudge(
                self.server[0] if own else str(self.judge_server),
                str(self.model if own else self.judge),
                prompt=prompt,
                temperature=heat,
                log_odds=self.score == "judge",
                api_key=key,
                timeout=self.timeout,
                patience=self.patience,
            )
            return voting(judge, *votes)
        if self.judge == "tests":
            from msjax.llm.unit_tests import UnitTests

            if votes != (1, 1) or self.judge_template != "yes_no":
                raise InputError(
                    "--judge tests is asked once, in no words; leave --judge-votes, "
                    "--judge-threshold and --judge-template out"
                )
            return UnitTests()
        if self.judge == ITSELF:
            if self.judge_votes > 1 and self.temperature == 0:
                raise InputError(
                    "temperature = 0 makes all votes equal; give a higher --temperature"
                )
            return Itself(prompt, *votes)
        if self.judge_template != "yes_no":
            raise InputError("--judge-template is of a model that judges, not of a function")
        if ":" not in self.judge:
            raise InputError(
                f"--judge is {self.judge!r}; give self, tests, module:function, or the name of a "
                "model with --judge-server URL"
            )
        return voting(own_judge(self.judge), *votes)

    @property
    def _judge_threshold(self) -> int:
        """Verdicts on an answer that must accept it."""
        if self.judge_threshold is not None:
            return self.judge_threshold
        return self.judge_votes // 2 + 1

    @property
    def _signals(self) -> dict[str, str | int | float | None]:
        """What scores and what judges the answers, as runs have it among their settings."""
        return {
            "score": None if self.score == "token_logprob" else self.score,
            "reward_model": self.reward_model,
            "judge": self.judge,
            "judge_template": None if self.judge_template == "yes_no" else self.judge_template,
            "judge_votes": None if self.judge_votes == 1 else self.judge_votes,
            "judge_threshold": None if self.judge_votes == 1 else self._judge_threshold,
            "judge_temperature": self.judge_temperature,
        }

    @cached_property
    def _scorer(self) -> "Scorer | None":
        """What scores the answers; None: the judge."""
        from msjax.llm.scores import find_score

        if self.score == "judge":
            return None
        if self.score != "reward":
            if self.reward_server is not None or self.reward_model is not None:
                raise InputError(
                    f"--reward-server and --reward-model are for --score reward, not {self.score}"
                )
            return find_score(self.score)
        if self.reward_server is None or self.reward_model is None:
            raise InputError("--score reward needs --reward-server URL and --reward-model NAME")
        from msjax.llm.reward import RewardModel

        return RewardModel(
            self.reward_server,
            self.reward_model,
            api_key=os.environ.get("REWARD_API_KEY") or "none",
            timeout=self.timeout,
            patience=self.patience,
        )

    def _rules(self, name: str) -> "dict[str, LiveRule]":
        """One rule per benchmark, from --posterior or from --pilot."""
        import jax

        from msjax.llm.live import rule_from_pilot, rule_from_posterior
        from msjax.llm.live_rule import LiveRule

        worth, price = self.worth_and_price()
        known: dict[str, Any] = {"rounds": self._budget, "value": worth, "price": price or 0.0}
        if self.posterior is not None and (self.pilot is None or self._follows_curve(name)):
            saved = self._saved_posterior()
            return {b: rule_from_posterior(name, saved, b, **known) for b in self._asked}
        pilot = self._pilot
        if self.pilot is None:
            return dict.fromkeys(self._asked, self._unlearnt(name))
        rules: dict[str, LiveRule] = {}
        for benchmark in self._asked:
            if benchmark not in pilot:
                raise InputError(
                    f"{self.pilot} knows {', '.join(pilot)} but not {benchmark}; record a pilot of "
                    "that benchmark"
                )
            # The key of `msjax fit`, if the file holds the benchmarks asked and no others.
            key = jax.random.fold_in(jax.random.key(self.seed), list(pilot).index(benchmark))
            rules[benchmark] = rule_from_pilot(
                name,
                pilot[benchmark],
                **known,
                key=key,
                model=self.pilot_model,
                judged=self.judge is not None,
            )
            self._require_same_signals(name, rules[benchmark], pilot[benchmark])
        return rules

    def _require_same_signals(
        self, name: str, rule: "LiveRule", pilot: "Sequence[Trajectory]"
    ) -> None:
        """Raises InputError if a rule learnt from other scores or another judge than are asked."""
        from msjax.llm.live_rule import learns, require_recorded_with
        from msjax.rules.spec import PROBABILITIES, SCORES, VERDICTS

        kind = "rounds" if self.samples is None else "samples"
        if not learns(name, self._budget + 1, kind):
            return
        scored = bool(rule.needs & (SCORES | PROBABILITIES))
        judged = bool(rule.needs & VERDICTS) or (scored and self.score == "judge")
        here = {
            option: value
            for option, value in self._signals.items()
            if (judged if option.startswith("judge") else scored)
        }
        require_recorded_with(name, pilot, here)

    def _unlearnt(self, name: str) -> "LiveRule":
        """A rule that learns nothing, so that it needs no pilot."""
        from msjax.llm.live_rule import learns, rule_without_pilot

        known = name, self._budget + 1, "rounds" if self.samples is None else "samples"
        if learns(*known):
            raise InputError(
                f"rule {name!r} needs --pilot FILE of labelled runs, or, if it is markovscale, "
                "--posterior FILE made by `msjax fit`"
            )
        return rule_without_pilot(*known, judged=self.judge is not None)

    @cached_property
    def _pilot(self) -> "dict[str, list[Trajectory]]":
        """Runs of --pilot by benchmark; none without it."""
        from msjax.data.store import read_runs

        found: dict[str, list[Trajectory]] = {}
        for run in read_runs(self.pilot) if self.pilot is not None else ():
            if run.benchmark not in self._asked:
                continue
            if (run.protocol == "parallel") != (self.samples is not None):
                held, wanted = ("rounds", "samples") if self.samples else ("samples", "rounds")
                raise InputError(
                    f"{self.pilot} holds {held} of {run.benchmark} (protocol {run.protocol!r}), "
                    f"and {wanted} are asked for; give a pilot of {wanted}"
                )
            found.setdefault(run.benchmark, []).append(run)
        return found

    def _shadow(
        self, rules: "Mapping[str, LiveRule]", runs: "Sequence[Trajectory]"
    ) -> dict[str, Any]:
        """What the rules would have done: logged question by question, and in sum."""
        import json

        from msjax.cli.output import plain
        from msjax.cli.tables import comparison_table
        from msjax.evaluate.paired import against_fixed, of_benchmark, tokens_until
        from msjax.llm.live import cut_by, shadow_file

        assert self.shadow is not None
        log = shadow_file(self.out, self.shadow)
        found, lines = [], []
        for name, rule in rules.items():
            full = of_benchmark(runs, name)
            cut = cut_by(rule.rule, full)
            found.append(against_fixed(name, cut, full, self._budget))
            for run, whole in zip(cut, full, strict=True):
                tokens = tokens_until(run, run.revisions)
                line = {
                    "benchmark": name,
                    "question_id": run.question_id,
                    "revisions": run.revisions,
                    "returned": run.returned,
                    "right": run.right,
                    "tokens": tokens,
                    "tokens_saved": tokens_until(whole, whole.revisions) - tokens,
                }
                lines.append(json.dumps(plain(line)) + "\n")
        write_text(log, "".join(lines))
        print(f"{self.shadow} would have done this ({log} has every question):")
        print(comparison_table(found))
        return {"rule": self.shadow, "log": log, "comparison": found}

    def _saved_posterior(self) -> "SavedPosterior":
        from msjax.posterior.store import load

        assert self.posterior is not None
        found = load(self.posterior)
        for b, name in enumerate(found.benchmarks):
            if name in self._asked:
                _warn(name, found.models[b], found.identified[b], found.contradicted[b])
        return found


def _warn(benchmark: str, model: str, identified: bool, contradicted: bool) -> None:
    if contradicted:
        print(
            f"warning: {benchmark}: the pilot contradicts the model {model} (see `msjax fit`); "
            "the plan is only as good as its curve"
        )
    if not identified:
        print(
            f"warning: {benchmark}: the pilot does not identify all that the curve needs (see "
            "`msjax fit`); the rule falls back on the prior there"
        )


def _ended_itself(run: "Trajectory") -> bool:
    """Whether the model ended its first answer, which a larger limit would leave as it is."""
    from msjax.data.messages import FINISHED

    return run.finish[0] is not None and run.finish[0].lower() in FINISHED


def full_file(out: Path, label: str) -> Path:
    """Where the run with all rounds, label "fixed: 3", or samples, "samples: 8", is recorded."""
    return out.with_suffix(f".{label.replace(': ', '-')}{out.suffix}")


def _drift(monitors: "Mapping[str, RateMonitor]") -> dict[str, Any]:
    """Alarms and present estimates of every benchmark, printed too."""
    found = {}
    for name, monitor in monitors.items():
        estimates = monitor.estimates()
        for stratum, rates in estimates.items():
            values = ", ".join(
                f"{rate} {x.estimate:.2f} [{x.low:.2f}, {x.high:.2f}]" for rate, x in rates.items()
            )
            print(f"{name}, {stratum}: {values}")
        for alarm in monitor.alarms:
            print(
                f"warning: {name}: {alarm.rate} drifted from {alarm.pilot:.2f} to {alarm.live:.2f} "
                f"(noticed after {alarm.questions} questions)"
            )
        if not monitor.alarms:
            print(f"{name}: nothing speaks against the pilot")
        alarms = [alarm._asdict() for alarm in monitor.alarms]
        found[name] = {"alarms": alarms, "estimates": estimates}
    return found


def _promised(promises: "Mapping[str, Promise]") -> dict[str, Any]:
    """What watching the rule showed, printed too."""
    found = {}
    for name, promise in promises.items():
        monitor = promise.monitor
        lost = f"loses {-monitor.mean:+.3f} on {monitor.questions} questions looked at"
        if not monitor.questions:
            lost = "no question was looked at; ask more of them, or raise --audit"
        kept = "broken" if monitor.broken else "not broken"
        print(f"{name}: promise {kept}: {lost}")
        found[name] = {
            "broken_at": monitor.broken_at,
            "questions": monitor.questions,
            "mean_difference": monitor.mean,
            "evidence": monitor.evidence,
        }
    return found


def _plan_result(plan: "RoundPlan") -> dict[str, Any]:
    return {
        "optimal_rounds": plan.optimal_rounds,
        "accuracy": plan.accuracy,
        "net_value": plan.net_value,
    }
