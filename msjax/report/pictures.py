"""Pictures of a decision card as SVG that takes the page's colours, in light and dark.

They are drawn on 400 units of width, so that their letters can be read on a phone.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup

from msjax.decision.card import Card, Decision, PolicyRow
from msjax.decision.words import changes_by_round
from msjax.intervals import Interval

__all__ = ["changes", "forest", "frontier"]

_WIDTH, _HEIGHT = 400.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 26.0, 48.0
_APART = 13.0
"""Least distance of two points of the frontier, so that their intervals and numbers are told
apart."""
_MOST_COUNTED = 12
"""Rounds up to which counts fit on their bars."""
_ROW, _LONGEST = 40.0, 52


def frontier(decision: Decision, rows: Sequence[PolicyRow]) -> Markup:
    """Accuracy against tokens of the policies in `rows`, numbered from 1, with their intervals.

    Where tokens were not reported the axis is that of answers asked for.
    """
    known = all(row.uncached is not None for row in rows)
    spent = [row.uncached.estimate if known and row.uncached else row.answers for row in rows]
    ticks_x = _ticks(min(spent), max(spent))
    ticks_y = _ticks(
        max(min(row.accuracy.low for row in rows), 0.0),
        min(max(row.accuracy.high for row in rows), 1.0),
    )
    place_x = _scale(ticks_x, _LEFT + 8, _WIDTH - _RIGHT - 8)
    place_y = _scale(ticks_y, _HEIGHT - _BOTTOM, _TOP)
    parts = _axes(ticks_x, ticks_y, place_x, place_y)
    middles = _spread([place_x(x) for x in spent], _LEFT + 8, _WIDTH - _RIGHT - 8)
    best, corners = -math.inf, []
    for j in sorted(range(len(rows)), key=lambda j: (spent[j], -rows[j].accuracy.estimate)):
        if rows[j].accuracy.estimate > best:
            best = rows[j].accuracy.estimate
            corners.append((middles[j], place_y(best)))
    steps = [corners[0]]
    for x, y in [*corners[1:], (_WIDTH - _RIGHT, corners[-1][1])]:
        steps += [(x, steps[-1][1]), (x, y)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps)
    parts.append(Markup('<polyline class="edge" points="{}"/>').format(line))
    for j, (row, x) in enumerate(zip(rows, middles, strict=True)):
        low, middle, high = (
            place_y(min(max(y, ticks_y[0]), ticks_y[-1]))
            for y in (row.accuracy.low, row.accuracy.estimate, row.accuracy.high)
        )
        kind = "use" if row.policy == decision.use else "other"
        shape = _point(x, middle, square=row.policy == decision.baseline)
        words = f"{row.policy.name}: {row.accuracy.estimate:.2f} at {spent[j]:,.0f}"
        parts.append(
            Markup(
                '<g class="{}"><title>{}</title><path class="bar" d="M{:.1f} {:.1f}V{:.1f}"/>'
                '{}<text class="mark" x="{:.1f}" y="{:.1f}">{}</text></g>'
            ).format(kind, words, x, low, high, shape, x, min(high, middle - 5) - 4, j + 1)
        )
    what = "uncached tokens per question" if known else "answers asked for per question"
    return _picture(
        parts, "accuracy", what, "Accuracy against tokens of every policy, with intervals"
    )


def changes(decision: Decision) -> Markup | None:
    """Questions repaired (upwards) and broken (downwards) in every round, with counts."""
    found = changes_by_round(decision)
    if not found:
        return None
    up, down = ([one[name] for one in found] for name in ("repaired", "broken"))
    # A sixth more than the bars, for the counts on them.
    ticks_y = _ticks(-max(*down, 1) * 7 / 6, max(*up, 1) * 7 / 6, whole=True)
    place_y = _scale(ticks_y, _HEIGHT - _BOTTOM, _TOP)
    each = (_WIDTH - _RIGHT - _LEFT) / len(found)
    parts = _axes([], ticks_y, lambda x: x, place_y, size=True)
    counted, every = len(found) <= _MOST_COUNTED, math.ceil(len(found) / _MOST_COUNTED)
    for i, one in enumerate(found):
        x = _LEFT + each * (i + 0.5)
        for kind, count, sign in (("good", up[i], 1), ("bad", down[i], -1)):
            top = min(place_y(sign * count), place_y(0))
            tall = abs(place_y(sign * count) - place_y(0))
            wide = min(each * 0.6, 60.0)
            parts.append(
                Markup(
                    '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
                ).format(kind, x - wide / 2, top, wide, tall)
            )
            if counted:
                beside = place_y(sign * count) + (-4 if sign > 0 else 12)
                parts.append(_text(x, beside, str(count), "mark"))
        if i % every == 0:
            asked = sum(one[name] for name in ("repaired", "broken", "kept_right", "kept_wrong"))
            parts.append(_text(x, _HEIGHT - _BOTTOM + 14, str(one["round"]), "tick"))
            parts.append(_text(x, _HEIGHT - _BOTTOM + 26, f"n={asked}", "small"))
    parts.append(_line(_LEFT, place_y(0), _WIDTH - _RIGHT, place_y(0), "zero"))
    parts.append(_text(_LEFT, 12, "repaired", "start good"))
    parts.append(_text(_LEFT + 64, 12, "broken", "start bad"))
    return _picture(
        parts, "questions", "round of revision", "Questions repaired and broken in every round"
    )


def forest(card: Card) -> Markup | None:
    """Differences side by side: plain revision on every benchmark, and models on the same ones."""
    groups: list[tuple[str, list[tuple[Interval, str]]]] = [
        (one.name, [(one.alone, "other"), (one.pooled, "use")]) for one in card.pooled
    ]
    groups += [
        (
            f"{pair.benchmark}: {pair.models[0]} less {pair.models[1]}",
            [(pair.first, "other square"), (pair.used, "use square")],
        )
        for pair in card.models
    ]
    if not groups:
        return None
    ends = [x for _, found in groups for one, _ in found for x in (one.low, one.high)]
    ticks = _ticks(min(*ends, 0.0), max(*ends, 0.0))
    place = _scale(ticks, _RIGHT + 8, _WIDTH - _RIGHT - 8)
    bottom = _TOP + _ROW * len(groups)
    parts = []
    for x in ticks:
        kind = "zero" if abs(x) < 1e-9 else "grid"
        parts.append(_line(place(x), _TOP - 6, place(x), bottom, kind))
        parts.append(
            _text(
                place(x), bottom + 14, f"{x:+.{_digits(ticks)}f}" if abs(x) > 1e-9 else "0", "tick"
            )
        )
    for i, (name, found) in enumerate(groups):
        y = _TOP + _ROW * i + 8
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        parts.append(
            Markup('<text class="start name" x="{:.1f}" y="{:.1f}"><title>{}</title>{}</text>')
            .format(_RIGHT, y, name, short)
        )  # fmt: skip
        for j, (one, kind) in enumerate(found):
            at = y + 10 + 10 * j
            parts.append(
                Markup('<g class="{}"><path class="bar" d="M{:.1f} {:.1f}H{:.1f}"/>{}</g>').format(
                    kind.split()[0],
                    place(one.low),
                    at,
                    place(one.high),
                    _point(place(one.estimate), at, square="square" in kind),
                )
            )
    return _picture(parts, "", "difference of accuracy", "Differences with intervals", bottom + 34)


def _ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Four to eight round numbers that hold all from `low` to `high`."""
    span = max(high - low, 1e-3)
    size = 10.0 ** math.floor(math.log10(span / 4))
    step = next(size * k for k in (1, 2, 2.5, 5, 10) if span / (size * k) <= 6)
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, max(last, first + 1) + 1)]


def _digits(ticks: Sequence[float]) -> int:
    """Decimals that tell ticks apart."""
    step = ticks[1] - ticks[0]
    return next(d for d in range(9) if abs(round(step, d) - step) < 1e-3 * step)


def _scale(ticks: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    """Where a number lies in the picture."""
    return lambda x: start + (end - start) * (x - ticks[0]) / (ticks[-1] - ticks[0])


def _spread(places: Sequence[float], low: float, high: float) -> list[float]:
    """The places moved as little as need be to lie apart, and within the picture."""
    gap = min(_APART, (high - low) / max(len(places) - 1, 1))
    order = np.argsort(places, kind="stable")
    wanted = np.asarray(places)[order] - gap * np.arange(len(places))
    # Means of runs that are out of order: the nearest places whose order holds.
    blocks: list[list[float]] = []
    for x in wanted:
        blocks.append([x])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    level = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    level = np.clip(level, low, high - gap * (len(places) - 1))
    found = np.empty(len(places))
    found[order] = level + gap * np.arange(len(places))
    return [float(x) for x in found]


def _axes(
    ticks_x: Sequence[float],
    ticks_y: Sequence[float],
    place_x: Callable[[float], float],
    place_y: Callable[[float], float],
    size: bool = False,
) -> list[Markup]:
    parts = []
    digits = _digits(ticks_y)
    for y in ticks_y:
        parts.append(_line(_LEFT, place_y(y), _WIDTH - _RIGHT, place_y(y), "grid"))
        shown = f"{abs(y):,.0f}" if size else f"{y:.{digits}f}"
        parts.append(_text(_LEFT - 6, place_y(y) + 4, shown, "end"))
    for x in ticks_x:
        parts.append(
            _text(place_x(x), _HEIGHT - _BOTTOM + 15, f"{x:,.{_digits(ticks_x)}f}", "tick")
        )
    return parts


def _point(x: float, y: float, square: bool) -> Markup:
    if square:
        return Markup('<rect class="point" x="{:.1f}" y="{:.1f}" width="8" height="8"/>').format(
            x - 4, y - 4
        )
    return Markup('<circle class="point" cx="{:.1f}" cy="{:.1f}" r="4.2"/>').format(x, y)


def _line(x: float, y: float, x_end: float, y_end: float, kind: str) -> Markup:
    return Markup('<path class="{}" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(
        kind, x, y, x_end, y_end
    )


def _text(x: float, y: float, words: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, words)


def _picture(
    parts: Sequence[Markup], vertical: str, across: str, said: str, height: float = _HEIGHT
) -> Markup:
    """The whole drawing with the names of its axes; `said` is read aloud in its place."""
    middle = (_TOP + height - _BOTTOM) / 2
    names = [_text((_LEFT + _WIDTH - _RIGHT) / 2, height - 4, across, "axis")]
    if vertical:
        names.append(
            Markup('<text class="axis" transform="translate(11 {:.1f}) rotate(-90)">{}</text>')
            .format(middle, vertical)
        )  # fmt: skip
    return Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, height, said, Markup("").join([*parts, *names])
    )
