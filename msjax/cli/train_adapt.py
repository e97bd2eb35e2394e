"""`msjax train adapt`: test-time training on questions whose answers nobody tells."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from msjax._io import locked
from msjax.cli.output import OutputFile, OutputFolder, Seed
from msjax.errors import InputError

if TYPE_CHECKING:
    from msjax.rules.protocol import StoppingRule
    from msjax.tasks.registry import Task
    from msjax.train.ttrl.loop import Outcome


@dataclass(frozen=True)
class TrainAdapt:
    """Train a model on its own votes: sample, take the consensus as label, reward agreement.

    Rollouts of a question are sampled until OptPO's rule is content with the votes; the first of
    them (see --n-train-rollouts) are learnt from. Held-out questions are answered before and after.
    The folder gets log.jsonl, checkpoints/, summary.json and model/, which `msjax run --model`
    loads. The same command resumes an interrupted run, with the same result to the bit. The exit
    status is 1 if early stopping ended the run; model/ then holds the last good weights.

    Example: msjax train adapt adapted --tiny
    """

    resumes = True

    out: Annotated[OutputFolder, tyro.conf.Positional]
    """Folder to write (or to resume)."""

    tiny: bool = False
    """Adapt a tiny decoder that is first trained from scratch on sums of two-digit numbers, in
    about a minute, and stopped while half of its answers are right."""

    model: Path | None = None
    """Folder of a Hugging Face checkpoint (default: what `msjax weights` obtained); with --tiny,
    the folder the tiny decoder is trained into, or was (default: start in the folder out)."""

    benchmark: str | None = None
    """Name of the benchmark, or a .jsonl or .parquet file (default: arithmetic-medium, with --tiny
    arithmetic-hard without words). Gold answers are used for the report alone."""

    template: str | None = None
    """Prompts, by name or from a file; default: the benchmark's own."""

    questions: int = 256
    """Questions to adapt to."""

    start: int = 0
    """The first of them; the held-out ones follow the last."""

    held_out: int = 128
    """Held-out questions."""

    samples: int = 16
    """Answers sampled per held-out question."""

    rule: Literal["optpo", "fixed"] = "optpo"
    """optpo: sample until the Bayes factor of leader against runner-up reaches --threshold. fixed:
    always --budget rollouts (TTRL)."""

    budget: int = 64
    """M, most rollouts per question."""

    n_train_rollouts: int = 32
    """N, rollouts sampled in any case and learnt from."""

    block: int = 8
    """Rollouts between two looks at the votes."""

    p_right: float = 0.4
    """Probability that a vote falls on the right answer, as the rule assumes it."""

    p_wrong: float = 0.2
    """Probability that it falls on one given wrong answer, as the rule assumes it."""

    threshold: float = 20.0
    """Bayes factor wanted."""

    method: Literal["grpo", "ppo", "sft"] = "grpo"
    """How the policy is updated."""

    rank: int | None = None
    """Rank of LoRA adapters; 0 updates all weights (default: 8, with --tiny 0)."""

    learning_rate: float = 2e-4
    """Of AdamW."""

    epochs: int = 3
    """Passes over the questions."""

    questions_per_step: int = 32
    """Questions that one update learns from together."""

    epochs_per_step: int = 1
    """Updates on the same rollouts."""

    clip_low: float = 0.2
    """The probability ratio is clipped at 1 - this,"""

    clip_high: float = 0.2
    """and at 1 + this."""

    kl_weight: float = 0.05
    """Weight of the KL to the starting model in the loss."""

    aggregation: Literal["sequence", "token", "constant"] = "sequence"
    """Loss per token averaged over each sequence, over all tokens, or over a constant length."""

    scaled: bool = False
    """Divide advantages by the standard deviation of their group, as GRPO does at first. Without,
    close votes weigh more and lopsided ones less (Dr. GRPO)."""

    max_kl: float = 1.0
    """Stop when the KL to the starting model exceeds this, in nats per token."""

    collapse: float = 0.5
    """Stop when agreement falls below this fraction of what it was in the first steps."""

    patience: int = 5
    """Stop after so many steps in a row without consensus, or with nothing left to learn."""

    temperature: float = 1.0
    """Of all sampling."""

    max_new_tokens: int | None = None
    """Most tokens per answer (default: 16, with --tiny 5)."""

    checkpoint_every: int = 5
    """Steps between checkpoints."""

    seed: Seed = 0
    """Seed of everything that is random."""

    json: OutputFile | None = None
    """Also write the summary to this file, as JSON."""

    def run(self) -> int:
        """Adapt, report, return the exit status."""
        from msjax.cli.output import write_json
        from msjax.train.ttrl.export import copy_folder, write_weights

        if self.questions < 1 or self.held_out < 1 or self.start < 0:
            raise InputError(
                f"questions {self.questions}, held_out {self.held_out} and start {self.start}: "
                "adapt to at least 1 question, hold out at least 1, and start at 0 or later"
            )
        with locked(self.out):
            folder = self._model_folder()
            outcome, config = self._adapt(folder)
            copy_folder(folder, self.out / "model")
            write_weights(self.out / "model", outcome.weights, config)
            result = self._summary(outcome)
            _report(result, self.out)
            write_json(self.out / "summary.json", result)
        if self.json is not None:
            write_json(self.json, result)
        return int(outcome.troubled)

    def _model_folder(self) -> Path:
        from msjax.llm.flax.weights import find_model

        if not self.tiny:
            return find_model(self.model)
        from msjax.train.ttrl.arithmetic import RESERVED, write_tiny

        if self.benchmark is not None:
            raise InputError(
                f"benchmark is {self.benchmark!r}, but the tiny decoder knows sums only; leave it "
                "out, or give --model without --tiny"
            )
        end = self.start + self.questions + self.held_out
        if end > RESERVED:
            raise InputError(
                f"questions and held_out reach question {end}, but the tiny decoder may have seen "
                f"answers from question {RESERVED} on; lower them or --start"
            )
        return write_tiny(self.model or self.out / "start", seed=self.seed)

    def _benchmark(self) -> Task:
        from msjax.tasks.registry import find_task
        from msjax.train.ttrl.arithmetic import tiny_benchmark

        if self.tiny:
            return tiny_benchmark()
        return find_task(self.benchmark or "arithmetic-medium", self.template)

    def _rule(self) -> StoppingRule:
        from msjax.rules.fixed import self_consistency
        from msjax.rules.optpo import optpo

        if self.rule == "fixed":
            return self_consistency(self.budget)
        return optpo(self.budget, self.p_right, self.p_wrong, self.threshold)

    def _adapt(self, folder: Path) -> tuple[Outcome, Any]:
        from msjax.llm.flax.chat import Chat, load_tokenizer
        from msjax.llm.flax.checkpoint import load
        from msjax.llm.flax.weights import model_name
        from msjax.train.ttrl.early_stopping import EarlyStopping
        from msjax.train.ttrl.loop import Schedule, TestTimeTraining
        from msjax.train.ttrl.pseudo_labels import ChatTask, Voting
        from msjax.train.ttrl.updates import Update

        tiny, benchmark = self.tiny, self._benchmark()
        asked = benchmark.questions(self.start, self.questions + self.held_out)
        rank = self.rank if self.rank is not None else 0 if tiny else 8
        longest = self.max_new_tokens if self.max_new_tokens is not None else 5 if tiny else 16
        voting = Voting(
            self._rule(),
            budget=self.budget,
            n_train_rollouts=self.n_train_rollouts,
            block=self.block,
        )
        update = Update(
            method=self.method,
            rank=rank,
            learning_rate=self.learning_rate,
            epochs_per_step=self.epochs_per_step,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            kl_weight=self.kl_weight,
            aggregation=self.aggregation,
            scaled=self.scaled,
        )
        early_stopping = EarlyStopping(
            max_kl=self.max_kl, collapse=self.collapse, patience=self.patience
        )
        schedule = Schedule(
            epochs=self.epochs,
            questions_per_step=self.questions_per_step,
            samples=self.samples,
            temperature=self.temperature,
            max_new_tokens=longest,
            checkpoint_every=self.checkpoint_every,
            seed=self.seed,
        )
        decoder = load(folder, "float32")
        chat = Chat(load_tokenizer(folder), model_name(folder), decoder.config.eos_token_ids)
        print(f"{self.out}: {model_name(folder)}, {benchmark.name}, {self.rule}, seed {self.seed}")
        training = TestTimeTraining(
            decoder, ChatTask(benchmark, chat), voting, update, early_stopping, schedule
        )
        settings = {
            "model": str(folder),
            "benchmark": benchmark.name,
            "template": self.template,
            "questions": [self.start, self.questions, self.held_out],
            "rule": [self.rule, self.p_right, self.p_wrong, self.threshold],
            "votes": [self.budget, self.n_train_rollouts, self.block],
            "update": asdict(update),
            "early_stopping": asdict(early_stopping),
            "schedule": asdict(schedule),
        }
        questions, held_out = asked[: self.questions], asked[self.questions :]
        return training.run(self.out, questions, held_out, settings), decoder.config

    def _summary(self, outcome: Outcome) -> dict[str, Any]:
        from msjax.train.ttrl.held_out import gain

        steps = outcome.steps
        used = [count for step in steps for count in step.rollouts]
        labels = [right for step in steps for right in step.label_right]
        return {
            "seed": self.seed,
            "rule": self.rule,
            "reason": outcome.reason,
            "steps": len(steps),
            "rollouts": sum(used),
            "rollouts_per_question": sum(used) / len(used),
            "rollouts_saved": 1 - sum(used) / (self.budget * len(used)),
            "label_accuracy": sum(labels) / len(labels),
            "no_consensus": sum(label is None for step in steps for label in step.labels),
            "uniform": sum(step.uniform for step in steps),
            "held_out": self.held_out,
            "samples": self.samples,
            "pass_at_1": [outcome.before.pass_at_1, outcome.after.pass_at_1],
            "vote_accuracy": [outcome.before.vote_accuracy, outcome.after.vote_accuracy],
            "gain": asdict(gain(outcome.before, outcome.after)),
            "kl": next((step.kl for step in reversed(steps) if step.kl is not None), None),
        }


def _report(result: dict[str, Any], out: Path) -> None:
    from msjax.cli.tables import interval, table
    from msjax.intervals import Interval

    rows = [
        [
            label,
            f"{result[name][0]:.3f}",
            f"{result[name][1]:.3f}",
            interval(Interval(**result["gain"][name]), 3),
        ]
        for label, name in (("pass@1", "pass_at_1"), ("vote", "vote_accuracy"))
    ]
    print(
        f"{result['steps']} steps, {result['reason']}; {result['rollouts']:,} rollouts, "
        f"{result['rollouts_per_question']:.1f} per question "
        f"({result['rollouts_saved']:.0%} less than the budget)"
    )
    print(
        f"labels right {result['label_accuracy']:.3f}; questions without consensus "
        f"{result['no_consensus']}, with equal rewards {result['uniform']}"
    )
    header = [f"{result['held_out']} held-out questions", "before", "after", "gain [90 %]"]
    print(table(header, rows))
    print(f"adapted model: {out / 'model'}")
