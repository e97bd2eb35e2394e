"""A decision card in words, commands, tables and JSON: the same everywhere it is shown.

Reference: docs/decisions.md.
"""

import math
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from msjax.data.runs import Runs
from msjax.decision.advice import SIZES
from msjax.decision.bounds import gating_bounds
from msjax.decision.card import SCHEMA, Card, Decision, PolicyRow
from msjax.decision.policies import FIRST, Policy
from msjax.decision.verdict import FEWEST
from msjax.evaluate.summary import cut_note
from msjax.intervals import Interval

__all__ = [
    "ChangedQuestion",
    "as_dict",
    "as_html",
    "as_text",
    "changed_questions",
    "changes_by_round",
    "commands",
    "headline",
    "shown_rows",
    "side_by_side",
    "statements",
    "table_of",
    "title",
    "whole_table",
]

USUAL = 50
"""Questions of a usual pilot."""
MOST_CHANGED = 10_000
"""Questions that revising changed up to which each is listed."""
INTERVALS = "90 % intervals: for the policy to use whichever it is, for the others all at once"
"""What the intervals of a table of policies are."""
_WIDTH, _LABEL = 98, 18
_RUN = "msjax run"
_MILLION = 1e6


def headline(decision: Decision) -> str:
    """What to do, in one imperative sentence."""
    use = _sentence(decision.use.says)
    questions = decision.judgement.clusters[0]
    if decision.status == "too few":
        are = "is" if questions == 1 else "are"
        of = "cluster" if questions < len(decision.pilot.cluster) else "question"
        return (
            f"Keep what you do ({decision.baseline.name}): {_counted(int(questions), of)} "
            f"{are} too few to decide; here is what they show."
        )
    if decision.status == "not identified":
        return "Keep what you do: these runs do not show what revising does."
    why = {
        "better": f"it is better than {_called(decision.reference)}",
        "no worse": f"it is no worse than {_called(decision.reference)}",
        "worse": f"it is worse than {_called(decision.reference)} but costs less",
        "cannot tell": f"nothing that costs more is shown to be better{_on_enough(decision)}"
        if decision.judgement.chosen == 0
        else f"whether it is better than {_called(decision.reference)} cannot be told yet",
    }[decision.verdict]
    if decision.use == decision.reference:
        why = f"no other policy is shown to be better{_on_enough(decision)}"
    return f"{use}: {why}."


def _on_enough(decision: Decision) -> str:
    """What to add to "nothing is shown to be better" where fewer questions show that it is."""
    judged = decision.judgement
    gain = judged.gain if judged.decided_by == "accuracy" else judged.net_gain
    few = ~judged.eligible & (gain.low > 0)
    return f" on {FEWEST} questions or more" if few.any() else ""


def statements(decision: Decision) -> list[tuple[str, str]]:
    """Labels and sentences, most important first."""
    found = [
        ("verdict", _verdict(decision)),
        ("present practice", _practice(decision)),
        ("tokens", _tokens(decision)),
        ("price", _price(decision)),
        ("plain revision", _plain(decision)),
        ("bounds", _bounds(decision)),
        ("judge", _judge(decision)),
        ("assumptions", _assumptions(decision)),
        ("collect", _collect(decision)),
    ]
    return [(label, sentence) for label, sentence in found if sentence]


def _verdict(decision: Decision) -> str:
    if decision.status == "not identified":
        return f"not identified: {decision.pilot.hidden}; {_seen(decision)}"
    chosen = decision.chosen
    if decision.use == decision.reference:
        if len(decision.policies) == 1:
            return f"there is no other policy to compare with; {_share(chosen)}"
        return f"{decision.use.name} is the present practice; {_share(chosen)}"
    word = "too few to decide" if decision.status == "too few" else decision.verdict
    counts = _counts(decision, decision.judgement.reference, decision.judgement.chosen)
    what = "accuracy" if decision.judgement.decided_by == "accuracy" else "net value"
    unit = "" if what == "accuracy" else " right answers per question"
    return (
        f"{word}: against {_called(decision.reference)}, {what} differs by "
        f"{_signed(decision.difference)}{unit}{counts} (no worse: a loss of at most "
        f"{decision.terms.margin:g})"
    )


def _counts(decision: Decision, before: int, after: int) -> str:
    """Right answers of two policies, on the questions that show both."""
    both = decision.outcomes.right[:, [before, after]]
    both = both[~np.isnan(both).any(axis=1)]
    was, now = (_number(x) for x in both.sum(axis=0))
    return f"; {was} of {len(both)} right -> {now} of {len(both)}"


def _seen(decision: Decision) -> str:
    """What runs show that cannot be judged."""
    runs = decision.pilot.seen
    first = _share(decision.policies[0])
    if runs is None or runs.rounds == 0:
        return first
    before, after = runs.right[:, :-1], runs.right[:, 1:]
    wrong = runs.real[:, 1:] & ~before
    ever = int(runs.right.any(axis=1).sum())
    return (
        f"{first}; {int((wrong & after).sum())} of {int(wrong.sum())} revisions of a wrong answer "
        f"repaired it, and {ever} of {runs.questions} runs hold a right answer, which no policy "
        "exceeds on them"
    )


def _practice(decision: Decision) -> str:
    chosen, base = decision.judgement.chosen, decision.judgement.baseline
    if decision.status == "not identified" or len(decision.policies) == 1:
        return ""
    if chosen != base and decision.judgement.reference == base:
        return ""
    if chosen == base:
        return f"{decision.baseline.name}: the policy to use is the present practice"
    row = decision.chosen
    if row.against is None:
        return f"{decision.baseline.name}: not compared, as no question shows both"
    counts = _counts(decision, base, chosen)
    return (
        f"against {_called(decision.baseline)}, accuracy differs by {_signed(row.against)}{counts}"
    )


def _tokens(decision: Decision) -> str:
    row = decision.chosen
    if row.uncached is None:
        return (
            "not identified: the runs do not report all tokens, so neither cost nor saving is known"
        )
    base = decision.policies[decision.judgement.baseline]
    text = f"{_plain_interval(row.uncached)} uncached tokens per question"
    if row.saving is None or decision.status == "not identified":
        return text
    if decision.judgement.chosen == decision.judgement.baseline:
        return f"{text}; the saving against the present practice is 0 exactly"
    share = ""
    if base.uncached is not None and base.uncached.estimate > 0:
        share = f" ({row.saving.estimate / base.uncached.estimate:.0%})"
    return (
        f"{text}; saves {_plain_interval(row.saving)}{share} against {_called(decision.baseline)}"
    )


def _price(decision: Decision) -> str:
    terms, row = decision.terms, decision.chosen
    if terms.token_price is not None:
        assert terms.price is not None and terms.worth is not None
        net = "0 exactly" if row.net is None else _signed(row.net, 3)
        return (
            f"a right answer is worth {terms.worth:g}, a token costs {terms.price:g} "
            f"({terms.price * _MILLION:g} per million): net of tokens, {decision.use.name} gains "
            f"{net} right answers per question against the first answer"
        )
    buys = [one for one in decision.policies if one.tokens_per_right is not None and one.eligible]
    if not buys:
        return ""
    best = min(buys, key=lambda one: one.tokens_per_right or math.inf)
    ways = [best, row] if row in buys and row is not best else [best]
    parts = [
        f"{one.policy.name} buys one more right answer for {one.tokens_per_right:,.0f} tokens, so "
        f"it pays below {_break_even(decision, one)} per million tokens"
        for one in ways
    ]
    unit = "" if terms.worth is not None else "; give --worth and --price to decide by net value"
    return "no price was given; " + "; ".join(parts) + unit


def _break_even(decision: Decision, row: PolicyRow) -> str:
    """The price of a million tokens at which a policy breaks even."""
    found = row.break_even
    assert found is not None
    worth = decision.terms.worth
    times = _MILLION * (1.0 if worth is None else worth)
    what = " right answers' worth" if worth is None else ""
    middle, low, high = (
        _amount(max(x, 0.0) * times) for x in (found.estimate, found.low, found.high)
    )
    return f"{middle} [{low}, {high}]{what}"


def _plain(decision: Decision) -> str:
    """Every round that was recorded, last answer: whether revising helps."""
    if decision.pilot.rounds is None or decision.pilot.rounds.rounds == 0:
        return ""
    row = decision.policies[decision.pilot.rounds.rounds]
    if row.gain is None or row.policy == decision.use:
        return ""
    counts = _counts(decision, 0, decision.pilot.rounds.rounds)
    return f"{row.policy.name}, last answer: {_signed(row.gain)} against the first answer{counts}"


def _complete(rounds: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the complete runs, and which question each is of."""
    complete = rounds.recorded > rounds.rounds
    return rounds.right[complete], rounds.question_numbers[complete]


def _bounds(decision: Decision) -> str:
    rounds = decision.pilot.rounds
    if decision.status == "not identified" or rounds is None or rounds.rounds == 0:
        return ""
    found = gating_bounds(*_complete(rounds))
    if found is None:
        return ""
    return (
        f"whoever knew which questions revising helps would be right on between "
        f"{found.upper_low:.2f} and {found.upper_high:.2f} of them after "
        f"{_counted(rounds.rounds, 'round')}, and whoever chose worst on between "
        f"{found.lower_low:.2f} and {found.lower_high:.2f}; nothing is said of rounds beyond those "
        "recorded"
    )


def _judge(decision: Decision) -> str:
    """How well the judge tells right answers from wrong ones."""
    found = decision.judge
    if found is None:
        return ""
    discrimination = found.discrimination
    parts = [
        f"accepted {found.accepted_right} of {found.judged_right} right and "
        f"{found.accepted_wrong} of {found.judged_wrong} wrong answers"
    ]
    if discrimination.identified:
        parts[0] += f"; discrimination {_signed(discrimination)}"
    return "; ".join([*parts, *found.warnings])


def _assumptions(decision: Decision) -> str:
    clusters, questions = int(decision.judgement.clusters[0]), len(decision.outcomes.right)
    what = "questions" if clusters == questions else f"the {clusters} clusters of questions"
    parts = [f"{what} are like those to come and independent of each other, and labels are right"]
    parts += decision.pilot.notes
    if decision.pilot.hidden is not None and decision.status != "not identified":
        parts.append(decision.pilot.hidden)
        parts += _hidden(decision)
    if decision.terms.family > 1:
        parts.append(
            f"intervals hold with probability 0.9 for all {decision.terms.family} benchmarks "
            "at once"
        )
    return "; ".join(parts)


def _hidden(decision: Decision) -> list[str]:
    """Between what the accuracy lies after rounds that a rule hid."""
    runs, judged = decision.pilot.seen, decision.pilot.rounds
    if runs is None or judged is None or judged.rounds == runs.rounds:
        return []
    last = runs.rounds
    there = runs.recorded > last
    least = int(runs.right[there, last].sum())
    return [
        f"after {_counted(last, 'round')} between {least} and {least + int((~there).sum())} of "
        f"{runs.questions} answers would have been right"
    ]


def _collect(decision: Decision) -> str:
    rounds = _recorded_rounds(decision)
    if cut := _cut(decision):
        return cut
    if decision.status == "not identified":
        return (
            f"record {USUAL} questions with {max(rounds, 3)} rounds each, none cut short by a "
            "label or a rule"
        )
    if decision.status == "too few":
        more = FEWEST - int(decision.judgement.clusters[0])
        return f"record at least {more} more questions, {USUAL} in all are usual"
    if decision.more is None:
        return "nothing more for this verdict"
    if decision.more.questions is None:
        return (
            f"not even {SIZES[-1]:,} more questions would decide ({decision.more.chance:.0%} of "
            "simulated futures): the difference is too small; go by tokens, or allow a larger "
            "--margin"
        )
    each = decision.policies[_all_index(decision)].uncached
    tokens = (
        "" if each is None else f" (about {decision.more.questions * each.estimate:,.0f} tokens)"
    )
    what = _counted(rounds, "round") if decision.pilot.rounds is not None else "all samples"
    return (
        f"{decision.more.questions:,} more questions with {what} each, none cut short{tokens}: "
        f"that decides in {decision.more.chance:.0%} of simulated futures"
    )


def _cut(decision: Decision) -> str:
    """Why more of the same is of no use: too many answers were cut; "" if they were not."""
    runs = [one for one in (decision.pilot.seen, decision.pilot.samples) if one is not None]
    return cut_note([one.details for one in runs if one.details is not None])


def _recorded_rounds(decision: Decision) -> int:
    return 0 if decision.pilot.seen is None else decision.pilot.seen.rounds


def _all_index(decision: Decision) -> int:
    """Position of the policy that asks for all that was recorded."""
    rounds = decision.pilot.rounds
    return rounds.rounds if rounds is not None else len(decision.policies) - 1


# Commands


def commands(decision: Decision) -> list[tuple[str, str]]:
    """What each command does, and the command: to apply the policy, and to record more."""
    found = []
    apply = _apply(decision)
    if apply:
        found.append(("apply it", apply))
    record = _record(decision)
    if record:
        found.append(("record more", record))
        files = [*(decision.files or ("pilot.jsonl",)), "more.jsonl"]
        found.append(("then", f"msjax card {' '.join(map(shlex.quote, files))}"))
    return found


def _apply(decision: Decision) -> str:
    use, files = decision.use, decision.files or ("pilot.jsonl",)
    if decision.status != "judged" or use.make is None:
        return ""
    if use.longest is not None and not _recorded_here(decision):
        return ""
    rule = "--rule card --pilot " + " ".join(map(shlex.quote, files[:1]))
    kind = f"--samples {use.asks}" if use.parallel else f"--rounds {use.asks - 1}"
    if use.stop == "fixed" and (use.returns == "last" or use.parallel):
        rule = "--rule fixed"
    if not _recorded_here(decision):
        # Whose loop that is we do not know: the proxy stands in front of any.
        return "" if use.name == FIRST else f"msjax serve --upstream URL {kind} {rule}"
    same = _same_settings(decision, use.longest or None)
    return f"{_RUN} live.jsonl{same} {kind} {rule}"


def _record(decision: Decision) -> str:
    more = decision.more.questions if decision.more is not None else None
    if decision.status == "not identified":
        more = USUAL
    if decision.status == "too few":
        more = USUAL - int(decision.judgement.clusters[0])
    if more is None or _cut(decision) or not _recorded_here(decision):
        return ""
    rounds = max(_recorded_rounds(decision), 1 if decision.status == "judged" else 3)
    kind = f"--rounds {rounds}"
    if decision.pilot.rounds is None and decision.pilot.samples is not None:
        kind = f"--samples {decision.pilot.samples.samples}"
    names = _runs(decision).question_ids
    numbered = all(name.isdecimal() for name in names)
    start = max(map(int, names)) + 1 if numbered else len(decision.outcomes.right)
    return (
        f"{_RUN} more.jsonl{_same_settings(decision)} --start {start} --questions {more} {kind} "
        "--rule fixed"
    )


def _runs(decision: Decision) -> Runs:
    runs = decision.pilot.seen if decision.pilot.seen is not None else decision.pilot.samples
    assert runs is not None
    return runs


def _recorded_here(decision: Decision) -> bool:
    """Whether `msjax run` recorded the runs, so that it can record more of them."""
    details = _runs(decision).details
    return details is not None and bool(details.keyed.all())


def _same_settings(decision: Decision, longest: int | None = None) -> str:
    """Options with which the runs were recorded; names in capitals are for the user to fill in.

    With another limit of tokens if `longest` is one.
    """
    pilot, details = decision.pilot, _runs(decision).details
    settings = [] if details is None else [one for one, _ in details.settings_there]
    sources = {str(one.get("source") or pilot.benchmark) for one in settings}
    benchmark = sources.pop() if len(sources) == 1 else pilot.benchmark
    text = f" --benchmarks {shlex.quote(benchmark)}"
    if {one.get("engine") for one in settings} == {"server"}:
        text += f" --server URL --model {shlex.quote(pilot.model)}"
    for name in ("template", "score", "temperature", "top_p", "max_new_tokens"):
        values = {one.get(name) for one in settings}
        if name == "max_new_tokens" and longest is not None:
            values = {longest}
        if len(values) == 1 and (value := values.pop()) is not None:
            text += f" --{name.replace('_', '-')} {shlex.quote(str(value))}"
    judges = {one.get("judge") for one in settings}
    if len(judges) == 1 and (judge := judges.pop()) is not None:
        served = str(judge) not in ("self", "tests") and ":" not in str(judge)
        text += f" --judge {shlex.quote(str(judge))}{' --judge-server URL' * served}"
        for name in ("judge_template", "judge_votes", "judge_threshold", "judge_temperature"):
            values = {one.get(name) for one in settings}
            if len(values) == 1 and (value := values.pop()) is not None:
                text += f" --{name.replace('_', '-')} {shlex.quote(str(value))}"
    return text


# Tables


def shown_rows(decision: Decision, most: int = 14) -> list[PolicyRow]:
    """The rows of a table for readers.

    The policy to use, the present practice, the first answer, numbers of rounds with their last
    answer, and of every other kind the most accurate one.
    """
    rows = decision.policies
    wanted = {0, decision.judgement.chosen, decision.judgement.baseline}
    kinds: dict[tuple[str, str, bool, bool], list[int]] = {}
    for j, row in enumerate(rows):
        policy = row.policy
        longer = policy.longest is not None
        kinds.setdefault((policy.stop, policy.returns, policy.parallel, longer), []).append(j)
    plain = kinds.pop(("fixed", "last", False, False), [])
    for others in kinds.values():
        wanted.add(max(others, key=lambda j: (np.nan_to_num(rows[j].accuracy.estimate), -j)))
    room = max(most - len(wanted), 0)
    step = max(1, math.ceil(len(plain) / room)) if room else len(plain) + 1
    wanted |= set(plain[::step])
    return [rows[j] for j in sorted(wanted)]


def table_of(decision: Decision) -> list[list[str]]:
    """The table of policies for readers, its header first."""
    header = ["", "policy", "right", "accuracy", "against first", "tokens", "saved", "tokens/right"]
    lines = []
    for row in shown_rows(decision):
        buys = row.tokens_per_right
        lines.append(
            [
                "*" if row.policy == decision.use else " ",
                row.policy.name,
                _of(_right(row), row),
                _accuracy(row),
                "-" if row.gain is None or row.policy.name == FIRST else _signed(row.gain),
                "-" if row.uncached is None else f"{row.uncached.estimate:,.0f}",
                "-" if row.saving is None else f"{row.saving.estimate:,.0f}",
                "-" if buys is None else f"{buys:,.0f}",
            ]
        )
    return [header, *lines]


def whole_table(decision: Decision, rows: Sequence[PolicyRow]) -> list[list[str]]:
    """Policies with all that is compared, each cell with its interval; the header first.

    Counts of right answers are those of the first answer and of the policy, on the same questions.
    Tokens that are the same for every question have no interval.
    """
    present = decision.baseline
    header = ["policy", "right", "accuracy", "against first"]
    header += [f"against {present.name}"] if present.name != FIRST else []
    header += ["tokens", "saved", "tokens/right"]
    lines = []
    for row in rows:
        buys = row.tokens_per_right
        same = row.policy.name == FIRST
        now = _of(_right(row), row)
        line = [row.policy.name, now if same else f"{_number(row.first_right)} -> {now}"]
        line += [_accuracy(row), "-" if row.gain is None or same else _signed(row.gain)]
        if present.name != FIRST:
            own = row.against is None or row.policy == present
            line.append("-" if own or row.against is None else _signed(row.against))
        line += [
            "-" if row.uncached is None else _interval_or_number(row.uncached),
            "-" if row.saving is None else _interval_or_number(row.saving),
            "-" if buys is None else f"{buys:,.0f}",
        ]
        lines.append(line)
    return [header, *lines]


def _accuracy(row: PolicyRow) -> str:
    return f"{row.accuracy.estimate:.2f} [{row.accuracy.low:.2f}, {row.accuracy.high:.2f}]"


def _right(row: PolicyRow) -> str:
    return _number(row.accuracy.estimate * row.questions)


def _of(number: str, row: PolicyRow) -> str:
    return f"{number} of {row.questions}"


def _aligned(lines: list[list[str]], room: int | None) -> list[str]:
    """Columns as wide as their widest cell; those at the right that find no room are left out."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    while room is not None and sum(widths) + 2 * (len(widths) - 1) > room:
        widths.pop()
    lines = [line[: len(widths)] for line in lines]
    left = (0, 1)
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def as_text(card: Card, width: int = _WIDTH) -> str:
    """The card for a terminal with so many columns; where they are few, the table has fewer too.

    Commands are not wrapped, so that they can be copied.
    """
    blocks = [textwrap.fill(f"note: {warning}", width) for warning in card.warnings]
    for decision in card.decisions:
        name = title(decision)
        lines = [*([name] if width >= _WIDTH else _wrapped("", name, width)), ""]
        lines += [*_wrapped("  ", headline(decision), width), ""]
        if pairs := commands(decision):
            lines += [*(f"  {what + ':':<{_LABEL - 4}}{command}" for what, command in pairs), ""]
        rows = _aligned(table_of(decision), width - 2 if width < _WIDTH else None)
        lines += [f"  {line}" for line in rows]
        lines += [*_wrapped("  * ", f"the policy to use; {INTERVALS}", width), ""]
        for label, sentence in statements(decision):
            lines += _wrapped(f"  {label:<{_LABEL}}", sentence, width)
        blocks.append("\n".join(lines))
    if together := side_by_side(card):
        wrapped = [line for sentence in together for line in _wrapped("  - ", sentence, width)]
        blocks.append("\n".join(["several benchmarks or models", "", *wrapped]))
    return "\n\n".join(blocks) + "\n"


def side_by_side(card: Card) -> list[str]:
    """What several benchmarks say of each other, and models of the same questions."""
    lines = [
        f"{pooled.name}: {_counted(pooled.rounds, 'round')}, last answer, against the first "
        f"answer: {_signed(pooled.alone)} by itself, {_signed(pooled.pooled)} pooled with the "
        "others"
        for pooled in card.pooled
    ]
    lines += [
        f"{pair.benchmark}: {pair.models[0]} less {pair.models[1]} on {pair.questions} questions: "
        f"first answers {_signed(pair.first)}{_real(pair.first)}, policies to use "
        f"{_signed(pair.used)}{_real(pair.used)}"
        for pair in card.models
    ]
    return lines


def _real(found: Interval) -> str:
    return " (cannot tell)" if found.low <= 0 <= found.high else " (real)"


def title(decision: Decision) -> str:
    """Which runs a decision is about."""
    pilot = decision.pilot
    judged = len(decision.outcomes.right)
    recorded = judged if pilot.seen is None else pilot.seen.questions
    clusters = len(set(pilot.cluster))
    part = f"{judged} of {recorded}" if judged < recorded else str(judged)
    what = [f"{part} question{'' if part == '1' else 's'}"]
    if pilot.runs.repeated:
        number = len(set(pilot.runs.question_ids))
        what = [f"{_counted(judged, 'run')} of {_counted(number, 'question')}"]
    elif clusters < judged:
        what[0] += f" in {_counted(clusters, 'cluster')}"
    if pilot.rounds is not None:
        what.append(f"up to {_counted(_recorded_rounds(decision), 'round')} of revision")
    if pilot.samples is not None:
        what.append(_counted(pilot.samples.samples, "sample"))
    return f"{pilot.benchmark} ({pilot.model}): {', '.join(what)}"


def _wrapped(start: str, sentence: str, width: int) -> list[str]:
    return textwrap.wrap(
        sentence,
        width,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
        break_long_words=False,
    )


def as_html(card: Card) -> str:
    """The card for a notebook: headlines, commands, tables and sentences."""
    parts = [f"<p>note: {escape(warning)}</p>" for warning in card.warnings]
    for decision in card.decisions:
        header, *rows = whole_table(decision, shown_rows(decision))
        parts.append(f"<p>{escape(title(decision))}<br><b>{escape(headline(decision))}</b></p>")
        parts += [
            f"<p>{escape(what)}: <code>{escape(command)}</code></p>"
            for what, command in commands(decision)
        ]
        lines = [_html_row("th", header, bold=False)]
        lines += [_html_row("td", line, bold=line[0] == decision.use.name) for line in rows]
        parts.append(
            f"<div style='overflow-x:auto'><table>{''.join(lines)}</table></div>"
            f"<p><small>{escape(INTERVALS)}</small></p>"
        )
        said = "".join(
            f"<dt><b>{escape(label)}</b></dt><dd>{escape(sentence)}</dd>"
            for label, sentence in statements(decision)
        )
        parts.append(f"<dl>{said}</dl>")
    parts += [f"<p>{escape(line)}</p>" for line in side_by_side(card)]
    return f"<div>{''.join(parts)}</div>"


def _html_row(tag: str, cells: Sequence[str], bold: bool) -> str:
    style = f"white-space:nowrap;text-align:right{';font-weight:bold' * bold}"
    first = style.replace("right", "left")
    filled = (
        f"<{tag} style='{style if i else first}'>{escape(cell)}</{tag}>"
        for i, cell in enumerate(cells)
    )
    return f"<tr>{''.join(filled)}</tr>"


# JSON


def as_dict(card: Card) -> dict[str, Any]:
    """The card in JSON's types; what is not known is None."""
    terms = card.terms
    found = {
        "schema": SCHEMA,
        "level": 0.9,
        "baseline": terms.baseline,
        "margin": terms.margin,
        "worth": terms.worth,
        "price": terms.price,
        "family": terms.family,
        "warnings": list(card.warnings),
        "benchmarks": [_decision_dict(one) for one in card.decisions],
        "pooled": [vars(one) for one in card.pooled],
        "models": [vars(one) for one in card.models],
    }
    return _plain_types(found)


def _decision_dict(decision: Decision) -> dict[str, Any]:
    pilot, rounds = decision.pilot, decision.pilot.rounds
    bounds = None
    if rounds is not None and rounds.rounds and decision.status != "not identified":
        bounds = gating_bounds(*_complete(rounds))
    return {
        "name": pilot.name,
        "title": title(decision),
        "benchmark": pilot.benchmark,
        "model": pilot.model,
        "questions": len(decision.outcomes.right),
        "clusters": decision.judgement.clusters[0],
        "rounds": _recorded_rounds(decision),
        "samples": 0 if pilot.samples is None else pilot.samples.samples,
        "status": decision.status,
        "hidden": pilot.hidden,
        "headline": headline(decision),
        "use": _policy_dict(decision.use),
        "verdict": decision.verdict,
        "reference": decision.reference.name,
        "baseline": decision.baseline.name,
        "decided_by": decision.judgement.decided_by,
        "difference": decision.difference,
        "policies": [_row_dict(decision, row) for row in decision.policies],
        "shown": [row.policy.name for row in shown_rows(decision)],
        "rounds_changed": changes_by_round(decision),
        "questions_changed": [vars(one) for one in changed_questions(decision)],
        "bounds": bounds and bounds._asdict(),
        "judge": _judge_dict(decision),
        "more": decision.more
        and {"questions": decision.more.questions, "chance": decision.more.chance},
        "notes": list(pilot.notes),
        "statements": dict(statements(decision)),
        "commands": [{"what": what, "command": command} for what, command in commands(decision)],
    }


def _judge_dict(decision: Decision) -> dict[str, Any] | None:
    found = decision.judge
    if found is None:
        return None
    return {
        "accepted_right": found.accepted_right,
        "judged_right": found.judged_right,
        "accepted_wrong": found.accepted_wrong,
        "judged_wrong": found.judged_wrong,
        "false_accept": found.false_accept,
        "false_reject": found.false_reject,
        "discrimination": found.discrimination,
        "warnings": list(found.warnings),
    }


def _policy_dict(policy: Policy) -> dict[str, Any]:
    names = ("name", "says", "stop", "setting", "returns", "asks", "learnt", "parallel")
    return {name: getattr(policy, name) for name in names}


def _row_dict(decision: Decision, row: PolicyRow) -> dict[str, Any]:
    return {
        **_policy_dict(row.policy),
        "used": row.policy == decision.use,
        "questions": row.questions,
        "right": row.right,
        "first_right": row.first_right,
        "accuracy": row.accuracy,
        "gain": row.gain,
        "against": row.against,
        "tokens": row.tokens,
        "uncached": row.uncached,
        "saving": row.saving,
        "net": row.net,
        "answers": row.answers,
        "extra_tokens": row.extra_tokens,
        "tokens_per_right": row.tokens_per_right,
        "break_even": row.break_even,
        "eligible": row.eligible,
    }


def changes_by_round(decision: Decision) -> list[dict[str, int]]:
    """What every round repaired, broke and left as it was, over the runs that reached it."""
    runs = decision.pilot.rounds
    if runs is None:
        return []
    before, after, real = runs.right[:, :-1], runs.right[:, 1:], runs.real[:, 1:]
    cells = {
        "repaired": real & ~before & after,
        "broken": real & before & ~after,
        "kept_right": real & before & after,
        "kept_wrong": real & ~before & ~after,
    }
    return [
        {"round": k + 1, **{name: int(cell[:, k].sum()) for name, cell in cells.items()}}
        for k in range(runs.rounds)
    ]


@dataclass(frozen=True)
class ChangedQuestion:
    """A question that revising repaired, broke, or both.

    Attributes:
        question_id: its name.
        question, gold: its text and its right answer; empty where not recorded.
        answers: first, after round 1, ...; None where there was none, empty where not recorded.
        right: whether each answer is right.
        repaired, broken: rounds that did so, from 1.
    """

    question_id: str
    question: str
    gold: str
    answers: tuple[str | None, ...]
    right: tuple[bool, ...]
    repaired: tuple[int, ...]
    broken: tuple[int, ...]


def changed_questions(decision: Decision) -> list[ChangedQuestion]:
    """The first `MOST_CHANGED` questions whose answer became right or wrong in a judged round."""
    runs, seen = decision.pilot.rounds, decision.pilot.seen
    if runs is None:
        return []
    before, after = runs.right[:, :-1], runs.right[:, 1:]
    real = runs.real[:, 1:]
    repairs, breaks = real & after & ~before, real & before & ~after
    rows = np.flatnonzero((repairs | breaks).any(axis=1))[:MOST_CHANGED]
    records = None
    if seen is not None and seen.records is not None:
        records, last = seen.records, {name: i for i, name in enumerate(seen.question_ids)}
    found = []
    for i in rows.tolist():
        name = runs.question_ids[i]
        right = tuple(runs.right[i][runs.real[i]].tolist())
        texts: tuple[str, str, tuple[str | None, ...]] = ("", "", ())
        if records is not None:
            record = records[last[name]]
            texts = record.question, record.gold, record.answers[: len(right)]
        repaired, broken = (tuple((np.flatnonzero(x[i]) + 1).tolist()) for x in (repairs, breaks))
        found.append(ChangedQuestion(name, *texts, right, repaired, broken))
    return found


def _plain_types(value: Any) -> Any:
    if isinstance(value, Interval):
        parts = (value.estimate, value.low, value.high)
        return {
            name: _plain_types(x)
            for name, x in zip(("estimate", "low", "high"), parts, strict=True)
        }
    if isinstance(value, dict):
        return {name: _plain_types(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_types(x) for x in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# Phrases


def _called(policy: Policy) -> str:
    return "the first answer" if policy.name == FIRST else policy.name


def _share(row: PolicyRow) -> str:
    return f"{_called(row.policy)} is right on {_of(_right(row), row)} ({_accuracy(row)})"


def _signed(found: Interval, digits: int = 2) -> str:
    if found.low == found.high:
        return "0 exactly"
    if math.isinf(found.low):
        return f"{found.estimate:+.{digits}f} [unknown]"
    return f"{found.estimate:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def _plain_interval(found: Interval) -> str:
    text = _interval_or_number(found)
    return f"{text} (the same for every question)" if math.isnan(found.low) else text


def _interval_or_number(found: Interval) -> str:
    """The number alone where it is known by construction or the same for every question."""
    if math.isnan(found.low) or found.low == found.high:
        return f"{found.estimate:,.0f}"
    return f"{found.estimate:,.0f} [{found.low:,.0f}, {found.high:,.0f}]"


def _number(count: float) -> str:
    """A number of right answers, which averages over foldings make a fraction."""
    return f"{count:.0f}" if abs(count - round(count)) < 1e-6 else f"{count:.1f}"


def _amount(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
