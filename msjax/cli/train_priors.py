"""`msjax train priors`: priors of questions from their features, learnt, reported and kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from msjax.cli.output import OutputFile, Seed, prepare_sampling
from msjax.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msjax.data.runs import Runs
    from msjax.data.trajectory import Trajectory
    from msjax.train.priors.report import PriorReport


@dataclass(frozen=True)
class Features:
    """Features of recorded questions: pooled final states of a local model that reads the prompt.

    A vector holds the mean over the prompt's tokens and the state of its last token. Benchmarks of
    msjax are asked as `msjax run` asks them, others by the question alone.

    Example: msjax train priors features runs.jsonl --out features.npz
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """JSON Lines files written by `msjax run`."""
    out: OutputFile
    """.npz file to write."""
    model: Path | None = None
    """Folder of a Hugging Face checkpoint, GGUF file, or a model of `msjax weights`; default:
    SmolLM2-135M-Instruct."""

    def run(self) -> int:
        """Read, encode, write; 0 when done."""
        prepare_sampling()
        from tqdm import tqdm

        from msjax.llm.flax.chat import Chat, load_tokenizer
        from msjax.llm.flax.checkpoint import load
        from msjax.llm.flax.weights import find_model, model_name
        from msjax.train.priors.features import FeatureTable, pooled_states, write_features

        everything = (run for runs in _read(self.runs) for run in runs)
        asked = {f"{run.benchmark}/{run.question_id}": run for run in everything}
        path = find_model(self.model)
        decoder = load(path)
        chat = Chat(load_tokenizer(path), str(path), decoder.config.eos_token_ids)
        prompts = [chat.begin(_conversation(run), alone=True).ids for run in asked.values()]
        with tqdm(total=len(prompts), desc="features", unit="question", disable=None) as bar:
            vectors = pooled_states(decoder, prompts, bar.update)
        source = f"{model_name(path)}: mean and last final state of the prompt"
        write_features(self.out, FeatureTable(source, tuple(asked), vectors))
        print(f"{self.out}: {len(vectors)} questions x {vectors.shape[1]} features of {source}")
        return 0


@dataclass(frozen=True)
class Train:
    """Learn a prior of every question from its features, and report it on questions held out.

    60 % of the questions are learnt from, 20 % say when to stop, and 20 % are looked at once, for
    the report. It is compared with one prior for all questions.

    Example: msjax train priors fit runs.jsonl --features features.npz --out predictor.safetensors
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """JSON Lines files: rounds for --target chain (samples tell it more of p0), samples for
    --target scores."""
    features: Path
    """.npz file with the arrays names, features and source, as `msjax train priors features`
    writes."""
    out: OutputFile
    """safetensors file to write."""
    target: Literal["chain", "scores"] = "chain"
    """chain: Beta distributions of p0, p_ic and p_ci (MarkovScale-t). scores: the prior of a
    truncated normal distribution of scores (OptScale-t)."""
    seed: Seed = 0
    """Seed of the split, the first weights and the order of questions."""
    json: OutputFile | None = None
    """Write everything that is printed here as JSON."""

    def run(self) -> int:
        """Train, report, save; 0 when done."""
        prepare_sampling()
        import jax
        from tqdm import tqdm

        from msjax.cli.output import write_json
        from msjax.train.priors.features import read_features
        from msjax.train.priors.predictor import Settings, save, split_questions, train
        from msjax.train.priors.report import report
        from msjax.train.priors.targets import TARGETS

        target = TARGETS[self.target]
        table = read_features(self.features)
        names, data = target.read(_pools(self.runs))
        settings = Settings()
        with tqdm(total=settings.epochs, desc="train", unit="epoch", disable=None) as bar:

            def show(epoch: int, loss: float) -> None:
                bar.set_postfix_str(f"validation {loss:.4f} nats", refresh=False)
                bar.update()

            predictor = train(
                target, data, names, table, seed=self.seed, settings=settings, progress=show
            )
        held = split_questions(names, self.seed).test
        found = report(
            predictor,
            jax.tree.map(lambda x: x[held], data),
            tuple(names[i] for i in held),
            table,
            seed=self.seed,
        )
        save(self.out, predictor)
        epochs = dict(zip(target.parts, predictor.epochs, strict=True))
        _print(found, len(names), epochs)
        print(f"written to {self.out}; seed {self.seed}")
        if self.json:
            write_json(
                self.json,
                {
                    "seed": self.seed,
                    "target": self.target,
                    "source": table.source,
                    "features": table.vectors.shape[1],
                    "settings": settings,
                    "questions": len(names),
                    "epochs": epochs,
                    "test": found,
                },
            )
        return 0


@dataclass(frozen=True)
class Apply:
    """Write the priors that a predictor gives questions, as JSON.

    In rules, use it by `msjax replay --predictor FILE --features FILE`.

    Example: msjax train priors apply predictor.safetensors --features new.npz --json priors.json
    """

    predictor: tyro.conf.Positional[Path]
    """File written by `msjax train priors fit`."""
    features: Path
    """Features of the questions, of the source that it was trained on."""
    json: OutputFile
    """File to write: for every question, the parameters of its prior."""

    def run(self) -> int:
        """Predict and write; 0 when done."""
        prepare_sampling()
        import jax.numpy as jnp
        import numpy as np

        from msjax.cli.output import write_json
        from msjax.train.priors.features import read_features
        from msjax.train.priors.predictor import load

        predictor, table = load(self.predictor), read_features(self.features)
        prior = predictor.target.prior(predictor.outputs(table, table.names))
        if not predictor.p0_spread_known:
            prior = prior._replace(p0=prior.p0._replace(icc=jnp.full_like(prior.p0.icc, jnp.nan)))

        def row(value: Any, i: int) -> Any:
            if hasattr(value, "_asdict"):
                return {name: row(x, i) for name, x in value._asdict().items()}
            return float(np.asarray(value)[i])

        rows = {name: row(prior, i) for i, name in enumerate(table.names)}
        write_json(self.json, {"target": predictor.target.name, "questions": rows})
        print(f"{self.json}: priors of {len(rows)} questions")
        return 0


@dataclass(frozen=True)
class TrainPriors:
    """Predict a prior of every question from its features: MarkovScale-t and OptScale-t."""

    step: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Features, tyro.conf.subcommand("features")]
        | Annotated[Train, tyro.conf.subcommand("fit")]
        | Annotated[Apply, tyro.conf.subcommand("apply")]
    ]

    def run(self) -> int:
        """Run the step."""
        return self.step.run()


def _read(paths: "Sequence[Path]") -> "list[list[Trajectory]]":
    """The runs of each file."""
    from msjax.data.store import read_runs

    files = [read_runs(path) for path in paths]
    models = sorted({run.model for runs in files for run in runs})
    if len(models) > 1:
        raise InputError(f"runs are of {', '.join(models)}; a prior is that of one model")
    return files


def _pools(paths: "Sequence[Path]") -> "list[Runs]":
    """Pools file by file, as one question may be in several files."""
    from msjax.data.runs import Runs

    return [
        pool.require_complete() for runs in _read(paths) for pool in Runs.from_records(runs).groups
    ]


def _conversation(run: "Trajectory") -> "list[Any]":
    from msjax.data.messages import asked
    from msjax.tasks.registry import BENCHMARKS

    if run.benchmark not in BENCHMARKS:
        return list(asked(run.question))
    return list(BENCHMARKS[run.benchmark].conversation(run.question))


def _print(found: "PriorReport", questions: int, epochs: "dict[str, int]") -> None:
    from msjax.cli.tables import interval, table

    stopped = ", ".join(f"{part} {epoch}" for part, epoch in epochs.items())
    print(f"{questions} questions; epochs that helped: {stopped}; intervals 90 %")
    print(f"on {found.questions} test questions, log evidence over one prior for all (nats each):")
    print(table(("part", "gain"), [(name, interval(x, 4)) for name, x in found.gain.items()]))
    rows = []
    for quantity in found.quantities:
        thirds = "; ".join(
            f"{b.predicted:.2f}: {interval(b.observed)}" for b in quantity.reliability
        )
        rows.append(
            (
                quantity.name,
                str(quantity.questions),
                "" if quantity.correlation is None else interval(quantity.correlation),
                "" if quantity.coverage is None else interval(quantity.coverage),
                thirds,
            )
        )
    header = ("quantity", "questions", "correlation", "coverage of 90 %", "predicted: observed")
    print(table(header, rows))
