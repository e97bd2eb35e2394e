"""What msjax says of trajectories that others recorded: gain, model, checks, bounds, later rounds.

Three kinds are compared with the first answer: rounds of revision that nothing cut short, loops
that ended when a judge accepted, and votes over independent samples. What the authors report stands
beside it where it is in their files.

The recordings are not part of this project. `--data` names a folder that holds them, one folder
per source; those that are absent are skipped by name. Fits are kept in `--json` one by one, and a
second call goes on where the first stopped.

    python -m inference.atlas --data FOLDER --json real_data.json --gains gains.json
"""

from __future__ import annotations

import csv
import json
import re
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro
from tqdm import tqdm

from msjax.cli.output import prepare_sampling, write_json
from msjax.cli.tables import markdown
from msjax.data.runs import Runs
from msjax.decision.verdict import LEVEL, word
from msjax.evaluate.means import DIFFERENCES, mean_interval, ratio_interval
from msjax.intervals import Interval

MARGIN = 0.02
"""A loss up to this counts as none."""


class Row(NamedTuple):
    """One run.

    Attributes:
        correct: after each round.
        cluster: runs of one cluster are not independent; None: it is one by itself.
        verdicts: whether a judge accepted each answer; None: there was no judge.
        published: first and last label as its authors have them; None: they have these.
    """

    correct: list[int]
    cluster: str | None = None
    verdicts: list[int | None] | None = None
    published: tuple[int, int] | None = None


States = dict[tuple[str, str], list[Row]]
"""Runs by model and benchmark."""


@dataclass(frozen=True)
class RealData:
    """Fit every per-question recording, and predict its later rounds from its first half.

    python -m inference.atlas --data FOLDER --json real_data.json --gains gains.json
    """

    data: Path
    """folder with the recordings"""
    json: Path = Path("real_data.json")
    """results of fits, read again to go on where an earlier call stopped"""
    gains: Path | None = None
    """what revisions, loops with a judge and votes gain, a second file, made in seconds"""
    fits: bool = True
    """also fit and predict, which takes hours"""
    only: str = ""
    """only recordings whose name contains this"""
    seed: int = 0
    """seed of all sampling"""


@dataclass(frozen=True)
class Recording:
    """One benchmark of one source."""

    source: str
    count: Runs
    published: tuple[float, float] | None = None
    """Accuracy of the first and last answers as the authors have it, where that differs."""

    @property
    def name(self) -> str:
        """Source, language model and benchmark."""
        return f"{self.source}: {self.count.model}, {self.count.name}"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        yield from map(json.loads, file)


def _textgrad(folder: Path) -> States:
    runs: States = defaultdict(list)
    for name in ("trajectories.jsonl", "leetcode_hard.jsonl"):
        for line in _lines(folder / name):
            cluster = line["question_id"] if name == "leetcode_hard.jsonl" else None
            # The authors report a vote over all rounds.
            vote = line.get("majority_correct")
            published = None if vote is None else (line["correct"][0], vote)
            row = Row(line["correct"], cluster, published=published)
            runs[line["model"], line["benchmark"]].append(row)
    return runs


def _incremental(folder: Path) -> States:
    runs: States = defaultdict(list)
    for line in _lines(folder / "qwen2.5-7b.jsonl"):
        benchmark = f"GSM8K, temperature {line['temperature']}"
        runs[line["model"], benchmark].append(Row(line["correct"], published=_ends(line)))
    return runs


def _ends(line: dict[str, Any]) -> tuple[int, int] | None:
    """First and last label by the authors' own reading of the answers."""
    labels = line.get("correct_published")
    return labels and (labels[0], labels[-1])


def _trajectories(folder: Path) -> States:
    runs: States = defaultdict(list)
    for line in _lines(folder / "trajectories.jsonl"):
        row = Row(line["correct"], published=_ends(line))
        runs[line["model"], line["benchmark"]].append(row)
    return runs


def _oracle_stop(folder: Path) -> States:
    runs = _trajectories(folder)
    with (folder / "direct_answer.csv").open() as file:
        for row in csv.DictReader(file):
            runs[row["model"], "GSM8K, bare answers"].append(Row([int(c) for c in row["correct"]]))
    return runs


def _self_reflection(folder: Path) -> States:
    runs: States = defaultdict(list)
    with (folder / "retries.csv").open() as file:
        for row in csv.DictReader(file):
            retried = [int(row["retry_correct"])] if row["retry_correct"] else []
            runs[row["model"], "10 exams"].append(Row([int(row["baseline_correct"]), *retried]))
    return runs


def _reflexion(folder: Path) -> States:
    runs: States = defaultdict(list)
    for line in _lines(folder / "trials.jsonl"):
        solved = line["solved_by_trial"]
        trials = solved[: solved.index(1) + 1] if 1 in solved else solved
        runs["GPT-3/3.5 agent", f"{line['benchmark']}, {line['variant']}"].append(Row(trials))
    return runs


def _debate(folder: Path) -> States:
    """The same twenty questions are put to each model in many ways."""
    runs: States = defaultdict(list)
    for line in _lines(folder / "trajectories.jsonl"):
        (question,) = re.findall(r"sample(\d+)", line["question_id"])
        runs[line["model"], "MMLU, debated"].append(Row(line["correct"], question))
    return runs


def _game24(folder: Path) -> States:
    """The model that answers is its own judge; five runs of every problem."""
    runs: States = defaultdict(list)
    for line in _lines(folder / "trajectories.jsonl"):
        row = Row(line["correct"], line["question_id"], line["verifier_accepts"])
        runs[line["model"], line["benchmark"]].append(row)
    return runs


def _planning(folder: Path) -> States:
    """A validator of plans accepts what is right and nothing else."""
    runs: States = defaultdict(list)
    for line in _lines(folder / "trajectories.jsonl"):
        row = Row(line["correct"], verdicts=line["correct"])
        runs[line["model"].removesuffix("_chat"), line["benchmark"]].append(row)
    return {key: rows for key, rows in runs.items() if any(len(row.correct) > 1 for row in rows)}


class Source(NamedTuple):
    """A folder.

    Attributes:
        read: its reader.
        ends: whether runs go on to the last round ("never"), or end when an oracle says that an
            answer is right, or when a judge accepts one.
        revises: whether rounds are revisions, not ever longer prefixes of one answer.
    """

    read: Callable[[Path], States]
    ends: Literal["never", "right", "accepted"] = "never"
    revises: bool = True


SOURCES: dict[str, Source] = {
    "textgrad_gpt4o": Source(_textgrad),
    "incremental_gsm8k": Source(_incremental),
    "debate_mmlu": Source(_debate),
    "cot_prefix_mmlupro": Source(_trajectories, revises=False),
    "oracle_stop_gsm8k": Source(_oracle_stop, "right"),
    "self_reflection_mcqa": Source(_self_reflection, "right"),
    "intercode_turns": Source(_trajectories, "right"),
    "reflexion_trials": Source(_reflexion, "right"),
    "game24_llm_verifier": Source(_game24, "accepted"),
    "planning_sound_verifier": Source(_planning, "accepted"),
}
SAMPLES = "epoch_pools"
"""Folder of independent samples."""


_AGAINST = ("NOT REVISIONS", "CONTRADICTED", "NOT ONE CHAIN")
"""Warnings that speak against the assumption."""


def read_recordings(folder: Path) -> list[Recording]:
    """All recordings in `folder` that show every question's rounds."""
    found = []
    for name, source in SOURCES.items():
        if not (folder / name).is_dir():
            print(f"skipped: {name} is not in {folder}")
            continue
        for (model, benchmark), rows in source.read(folder / name).items():
            judged = source.ends == "accepted"
            count = Runs.from_arrays(
                [row.correct for row in rows],
                verdicts=[row.verdicts for row in rows] if judged else None,
                cluster=_clusters(rows),
                benchmark=benchmark,
                model=model,
                protocol="sequential" if source.revises else "prefix",
                censored=[source.ends == "right" and 1 in row.correct for row in rows],
            )
            found.append(Recording(name, count, _published(rows)))
    return found


def _published(rows: Sequence[Row]) -> tuple[float, float] | None:
    ends = [row.published for row in rows if row.published is not None]
    if len(ends) < len(rows):
        return None
    first, last = np.mean(ends, axis=0)
    return float(first), float(last)


def _clusters(rows: Sequence[Row]) -> list[str] | None:
    names = [row.cluster for row in rows if row.cluster is not None]
    return names if len(names) == len(rows) else None


def predict_later_rounds(recording: Recording, seed: int) -> dict[str, Any]:
    """Fit the average of models to the first half of the rounds, and score it on the later ones.

    `score` and `pooled` are log-probabilities of the later rounds (nats), `inside` says of every
    later round whether its observed accuracy lies in the central 90 % predictive interval,
    `announced` whether what was seen of the first half spoke against the model.
    """
    import jax
    import scipy.special

    from msjax.posterior import fit
    from msjax.posterior.average import apportion
    from msjax.posterior.compare import leave_future_out, training_rounds
    from msjax.posterior.fits import fit_model
    from msjax.posterior.models import find_model
    from msjax.posterior.sample import host_generator

    count = recording.count
    rounds = training_rounds(count.rounds)
    early = count.truncated(rounds)
    key, pooled_key, draw_key = jax.random.split(_key(recording, seed + 1), 3)
    found = fit(early, seed=key)
    fits = [(c.fit, c.weight) for c in found.candidates if c.fit]
    weights = np.array([weight for _, weight in fits])
    by_model = np.stack([leave_future_out(one, count) for one, _ in fits])
    score = scipy.special.logsumexp(by_model, axis=0, b=weights[:, None])
    pooled = leave_future_out(fit_model(early, find_model("pooled"), pooled_key), count)
    random = host_generator(draw_key)
    predicted = np.concatenate(
        [
            one.model.continue_runs(
                random,
                {name: x[:share] for name, x in one.draws.items()},
                early.correct,
                count.rounds - rounds,
            )
            for (one, _), share in zip(fits, apportion(weights.tolist(), 1000), strict=True)
            if share
        ]
    )
    accuracy = (predicted[..., rounds + 1 :] == 1).mean(axis=1)
    low, high = np.quantile(accuracy, [0.05, 0.95], axis=0)
    observed = (count.correct[:, rounds + 1 :] == 1).mean(axis=0)
    difference = score - pooled
    return {
        "trained_on": rounds,
        "model": found.leading.model.name,
        "score": score.sum(),
        "pooled": pooled.sum(),
        "gain": difference.sum(),
        "gain_error": np.sqrt(len(difference) * difference.var(ddof=1)),
        "observed": observed,
        "low": low,
        "high": high,
        "inside": (observed >= low) & (observed <= high),
        "announced": [w for w in found.warnings if w.startswith(_AGAINST)],
    }


def gains(recordings: Sequence[Recording], folder: Path) -> dict[str, Any]:
    """What asking again gains over the first answer: by revisions, by loops with a judge, by votes.

    Left out are runs that an oracle stopped. Intervals of one kind hold at once with probability
    .9. Fix and damage are shares of the wrong and of the right answers that one round changed,
    whatever the round; of a judge it is counted how often it accepts right and wrong answers.
    `ever_right` is what counting "once right" as right for ever would report at the end.
    """
    free = [r for r in recordings if not r.count.n_censored and r.count.protocol == "sequential"]
    found: dict[str, Any] = {}
    for kind, judged in (("revisions", False), ("loops", True)):
        ours = [r for r in free if bool((r.count.verdicts >= 0).any()) == judged]
        found[kind] = {r.name: _gain(r, LEVEL ** (1 / len(ours))) for r in ours}
    return found | {"votes": _votes(folder / SAMPLES) if (folder / SAMPLES).is_dir() else {}}


def _gain(recording: Recording, level: float) -> dict[str, Any]:
    runs = recording.count
    right = runs.correct == 1
    names = np.arange(runs.questions) if runs.cluster is None else np.array(runs.cluster)
    _, cluster = np.unique(names, return_inverse=True)
    rows, last = np.arange(runs.questions), runs.recorded - 1
    moved = np.arange(right.shape[1] - 1) < last[:, None]
    before, after = right[:, :-1], right[:, 1:]
    gain = mean_interval(
        right[rows, last].astype(float) - right[:, 0], DIFFERENCES, cluster=cluster, level=level
    )
    judged, accepted = runs.verdicts >= 0, runs.verdicts == 1
    return {
        "questions": runs.questions,
        "clusters": int(cluster.max()) + 1,
        "rounds": runs.rounds,
        "first": right[:, 0].mean(),
        "last": right[rows, last].mean(),
        "ever_right": right.any(axis=1).mean(),
        "published": recording.published,
        "gain": gain,
        "fix": _rate(moved & ~before & after, moved & ~before, cluster),
        "damage": _rate(moved & before & ~after, moved & before, cluster),
        # Of a verifier whose verdicts are the labels there is nothing to count.
        "verdict_is_label": bool((accepted == right)[judged].all()),
        "accepts_right": _rate(accepted & right, judged & right, cluster),
        "accepts_wrong": _rate(accepted & ~right, judged & ~right, cluster),
        "word": word(gain.low, gain.high, MARGIN),
    }


def _votes(folder: Path) -> dict[str, Any]:
    """Majorities of independent samples against the first one, over the runs of every benchmark.

    Taken are runs that keep at least nine of ten answers. Equal counts go to the answer given
    first. The mean over runs is clustered by question, since all runs have the same questions.
    """
    kept = {
        run["run"]
        for run in json.loads((folder / "runs.json").read_text())
        if run["answers_recorded"] >= 0.9
    }
    pools: dict[str, dict[str, list[tuple[str, list[int], int]]]] = {}
    for line in _lines(folder / "pool.jsonl"):
        if line["run"] in kept:
            votes = Counter(answer for answer in line["answers"] if answer is not None)
            leader = max(votes, key=votes.__getitem__) if votes else None
            chosen = line["answers"].index(leader) if votes else 0
            of_run = pools.setdefault(line["benchmark"], {}).setdefault(line["run"], [])
            of_run.append((line["question_id"], line["correct"], line["correct"][chosen]))
    found = {}
    for benchmark, runs in pools.items():
        changes, questions, words = [], [], Counter[str]()
        for rows in runs.values():
            change = np.array([vote - labels[0] for _, labels, vote in rows], float)
            own = mean_interval(change, DIFFERENCES, level=LEVEL ** (1 / len(runs)))
            words[word(own.low, own.high, MARGIN)] += 1
            changes.append(change)
            questions += [question for question, _, _ in rows]
        everything = [row for rows in runs.values() for row in rows]
        _, cluster = np.unique(questions, return_inverse=True)
        found[benchmark] = {
            "runs": len(runs),
            "questions": int(cluster.max()) + 1,
            "samples": sorted({len(labels) for _, labels, _ in everything}),
            "first": np.mean([labels[0] for _, labels, _ in everything]),
            "majority": np.mean([vote for _, _, vote in everything]),
            "ever_right": np.mean([max(labels) for _, labels, _ in everything]),
            "gain": mean_interval(np.concatenate(changes), DIFFERENCES, cluster=cluster),
            "words": dict(words),
        }
    return found


def _rate(changed: np.ndarray, chances: np.ndarray, cluster: np.ndarray) -> Interval | None:
    """Share of the chances that were taken, with one more, half taken; None if there were none."""
    if not chances.any():
        return None
    found = ratio_interval(
        np.append(changed.sum(axis=1), 0.5),
        np.append(chances.sum(axis=1), 1.0),
        cluster=np.append(cluster, cluster.max() + 1),
    )
    return Interval(found.estimate, max(found.low, 0.0), min(found.high, 1.0))


def gains_tables(found: dict[str, Any]) -> str:
    """Tables of revisions, of loops with a judge and of votes."""
    header = ["recording", "runs x rounds", "accuracy", "published", "ever right", "gain"]
    header += ["fix", "damage"]
    revisions = [[*_cells(name, x), x["word"]] for name, x in found["revisions"].items()]
    loops = [
        [
            *_cells(name, x),
            *(
                "as labelled" if x["verdict_is_label"] else _share(x[accepts])
                for accepts in ("accepts_right", "accepts_wrong")
            ),
            x["word"],
        ]
        for name, x in found["loops"].items()
    ]
    votes = [
        [
            benchmark,
            f"{x['runs']} x {x['questions']}",
            ", ".join(map(str, x["samples"])),
            f"{x['first']:.3f} -> {x['majority']:.3f}",
            f"{x['ever_right']:.3f}",
            _change(x["gain"]),
            ", ".join(f"{count} {said}" for said, count in sorted(x["words"].items())),
        ]
        for benchmark, x in found["votes"].items()
    ]
    return "\n\n".join(
        (
            markdown([*header, "asking again is"], revisions),
            markdown([*header, "accepts right", "accepts wrong", "the loop is"], loops),
            markdown(
                ["benchmark", "runs x questions", "samples", "accuracy", "ever right", "gain"]
                + ["a vote is, run by run"],
                votes,
            ),
        )
    )


def _cells(name: str, x: dict[str, Any]) -> list[str]:
    published = x["published"]
    return [
        name,
        f"{x['questions']} x {x['rounds']}"
        + (f" ({x['clusters']} questions)" if x["clusters"] < x["questions"] else ""),
        f"{x['first']:.3f} -> {x['last']:.3f}",
        "-" if published is None else "{:.3f} -> {:.3f}".format(*published),
        f"{x['ever_right']:.3f}",
        _change(x["gain"]),
        _share(x["fix"]),
        _share(x["damage"]),
    ]


def _change(found: dict[str, float]) -> str:
    return "{estimate:+.3f} [{low:+.3f}, {high:+.3f}]".format(**found)


def _share(found: dict[str, float] | None) -> str:
    if found is None:
        return "not identified"
    return "{estimate:.3f} [{low:.3f}, {high:.3f}]".format(**found)


def study(recording: Recording, seed: int) -> dict[str, Any]:
    """Everything `msjax fit` says of a recording, and how its first half predicts the rest."""
    from msjax.posterior import fit
    from msjax.posterior.words import as_dict

    found = fit(recording.count, seed=_key(recording, seed))
    result: dict[str, Any] = {"fit": as_dict(found), "later": None}
    if not recording.count.n_censored and recording.count.rounds >= 2:
        result["later"] = predict_later_rounds(recording, seed)
    return result


def _key(recording: Recording, seed: int) -> Any:
    import jax

    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(recording.name.encode()))


def _interval(found: dict[str, float] | None) -> str:
    if found is None:
        return "not identified"
    return f"{found['median']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def fits_table(results: dict[str, Any]) -> str:
    """One row per recording: model, failed checks, bounds after the observed rounds and limits."""
    rows = []
    for name, result in results.items():
        fit = result["fit"]
        after, limit = fit["bounds"]["after"][fit["rounds"]], fit["bounds"]["limit"]
        failed = [c["name"] for c in fit["checks"] if c["contradicted"]]
        misfit = [c["statistic"] for c in fit["ppc"] if c["surprising"]]
        rows.append(
            [
                name,
                f"{fit['questions']} x {fit['rounds']}"
                + (" (censored)" if fit["censored"] else ""),
                fit["model"],
                ", ".join(failed) or "none",
                ", ".join(misfit) or "none",
                _interval(fit["parameters"]["p_ic"]["posterior"]),
                _interval(after["neutral"]),
                _interval(limit["neutral"]),
                _interval(limit["upper"]),
            ]
        )
    header = [
        "recording",
        "questions x rounds",
        "model",
        "checks one chain fails",
        "model misfit",
        "p_ic",
        "accuracy after",
        "limit",
        "upper bound",
    ]
    return markdown(header, rows)


def later_table(results: dict[str, Any]) -> str:
    """One row per uncensored recording: the first half of the rounds predicting the later ones."""
    rows = []
    for name, result in results.items():
        later = result["later"]
        if later is None:
            continue
        inside = later["inside"]
        rows.append(
            [
                name,
                str(later["trained_on"]),
                later["model"],
                f"{later['gain']:+.1f} +- {later['gain_error']:.1f}",
                f"{sum(inside)} of {len(inside)}",
                "; ".join(w.split(":")[0] for w in later["announced"]) or "nothing",
            ]
        )
    header = [
        "recording",
        "rounds seen",
        "model chosen",
        "elpd of later rounds over pooled",
        "rounds inside 90 %",
        "said beforehand",
    ]
    return markdown(header, rows)


def main() -> None:
    """Study the recordings, print the tables as Markdown, write the JSON."""
    options = tyro.cli(RealData)
    prepare_sampling()
    done = json.loads(options.json.read_text()) if options.json.exists() else {}
    recordings = [r for r in read_recordings(options.data) if options.only in r.name]
    if not recordings:
        print(f"--only is {options.only!r}, which no recording's name contains", file=sys.stderr)
        sys.exit(2)
    if options.gains is not None:
        write_json(options.gains, gains(recordings, options.data))
        print(gains_tables(json.loads(options.gains.read_text())))
    for recording in tqdm(recordings if options.fits else [], unit="recording"):
        if recording.name not in done:
            done[recording.name] = study(recording, options.seed)
            write_json(options.json, done)
    if not options.fits:
        return
    done = json.loads(options.json.read_text())
    print(f"\nseed {options.seed}\n\n{fits_table(done)}\n\n{later_table(done)}")


if __name__ == "__main__":
    main()
