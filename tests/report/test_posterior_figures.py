"""Figures of a fit and of its calibration: they show the numbers of a report and say its nulls."""

import numpy as np
import pytest
import scipy.stats

from msjax.errors import InputError
from msjax.report.figures import posterior, style
from msjax.verify.evidence import FALSE_ALARM

ROUNDS, HORIZON = 2, 4


def interval(median):
    return {"mean": median, "median": median, "low": median - 0.05, "high": median + 0.07}


def bounds(median):
    return {
        "upper": interval(median + 0.1),
        "neutral": interval(median),
        "lower": interval(median - 0.1),
        "upper_most": interval(median + 0.2),
        "lower_most": interval(median - 0.2),
    }


def benchmark(limit=0.7):
    """One benchmark of a report; with limit None, no rate is identified."""
    known = limit is not None
    nothing = dict.fromkeys(bounds(0.5))
    after = [bounds(0.5 + 0.04 * k) if known else nothing for k in range(HORIZON + 1)]
    after[0] = after[0] | {"neutral": interval(0.5)}

    def check(statistic, observed, surprising=False):
        known = [x for x in observed if x is not None]
        shift = dict(zip(("low", "median", "high"), (-0.1, 0.02, 0.12), strict=True))
        bands = {
            part: [None if x is None else x + by for x in observed] for part, by in shift.items()
        }
        return {
            "statistic": statistic,
            "observed": observed,
            **bands,
            "p_value": 0.003 if surprising else min(known),
            "surprising": surprising,
            "sentence": "",
        }

    return {
        "model": "mover_stayer",
        "bounds": {
            "rounds": ROUNDS,
            "after": after,
            "limit": bounds(limit) if known else nothing,
        },
        "prior_predictive": {"accuracy": [interval(0.5)] * (HORIZON + 1)},
        "observed": {"accuracy": [0.5, 0.55, 0.6], "questions": [40, 40, 20]},
        "ppc": [
            check("accuracy", [0.5, 0.55, 0.6]),
            check("p_ic per round", [0.2, 0.3], surprising=True),
            check("p_ci per round", [0.1, None]),
            check("second order", [0.3, None, 0.6, 0.9]),
            check("flips per question", [0.5, 0.3, 0.15, 0.05]),
            check("never right", [0.2]),
            check("always right", [0.3]),
        ],
    }


@pytest.fixture
def report():
    """Two benchmarks; of "stopped" nothing but the first accuracy is identified."""
    return {"benchmarks": {"gsm8k": benchmark(), "stopped": benchmark(None)}}


def texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def errorbars(axis):
    """Points of every set of bars by label: value, low and high, along x or y."""
    found = {}
    for container in axis.containers:
        line, _, (bars,) = container.lines
        ends = np.array(bars.get_segments())
        varying = 0 if container.has_xerr else 1
        rows = zip(line.get_xydata()[:, varying], *ends[..., varying].T, strict=True)
        found.setdefault(container.get_label(), []).extend(np.array(list(rows)))
    return found


def test_forest_shows_limits_and_what_was_observed(report):
    figure = posterior.forest(report)
    (axis,) = figure.axes
    drawn = errorbars(axis)
    limit = report["benchmarks"]["gsm8k"]["bounds"]["limit"]
    assert len(drawn) == 3
    for label, points in drawn.items():
        expected = limit[label.split(":")[0]]
        assert points == [pytest.approx([expected[x] for x in ("median", "low", "high")])]
    marks = [line for line in axis.lines if line.get_label().startswith("observed")]
    assert [line.get_xdata()[0] for line in marks] == [0.5, 0.6, 0.5, 0.6]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["gsm8k\nmover_stayer, n = 40", "stopped\nmover_stayer, n = 40"]
    assert texts(figure).count("limit not identified") == 1
    assert "90 % intervals" in axis.get_xlabel() and "probability" in axis.get_xlabel()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_forest_grows_with_the_benchmarks(count, tmp_path):
    figure = posterior.forest({"benchmarks": {f"b{i}": benchmark() for i in range(count)}})
    figure.savefig(tmp_path / "forest.png")
    (axis,) = figure.axes
    assert axis.get_window_extent().height / count > 40
    assert len(figure.legends[0].texts) == 5


def test_curves_show_posterior_bounds_and_observed_accuracy(report):
    figure = posterior.curve_bands(report, "gsm8k")
    (axis,) = figure.axes
    found = report["benchmarks"]["gsm8k"]
    lines = {line.get_label().split(":")[0]: line for line in axis.lines}
    for (name, place), band in zip(
        (("upper", 0), ("neutral", 1), ("lower", 2)), axis.collections[::2], strict=False
    ):
        medians = [point[name]["median"] for point in found["bounds"]["after"]]
        np.testing.assert_array_equal(lines[name].get_ydata(), medians)
        path = band.get_paths()[0].vertices
        last = path[path[:, 0] == HORIZON][:, 1]
        edges = found["bounds"]["after"][HORIZON][name]
        assert (last.min(), last.max()) == (edges["low"], edges["high"])
        limit = axis.containers[place].lines[0].get_xydata()[0]
        assert tuple(limit) == (HORIZON + 1 + 0.2 * place, found["bounds"]["limit"][name]["median"])
    observed = errorbars(axis)["observed (Wilson)"]
    for (accuracy, low, high), right, n in zip(observed, (20, 22, 12), (40, 40, 20), strict=True):
        wilson = scipy.stats.binomtest(right, n).proportion_ci(0.9, "wilson")
        assert (accuracy, low, high) == pytest.approx((right / n, wilson.low, wilson.high))
    assert {"not observed", "limit", "gsm8k (mover_stayer, n = 40)"} <= set(texts(figure))
    assert "90 % intervals" in axis.get_ylabel() and "rounds" in axis.get_xlabel()


def test_curves_say_what_is_not_identified(report, tmp_path):
    figure = posterior.curve_bands(report, "stopped")
    figure.savefig(tmp_path / "curve.png")
    assert "later rounds and limit not identified" in texts(figure)
    (axis,) = figure.axes
    neutral = next(line for line in axis.lines if "neutral" in line.get_label())
    np.testing.assert_array_equal(neutral.get_ydata(), [0.5] + [np.nan] * HORIZON)


def test_predictive_panels_show_every_check(report, tmp_path):
    from matplotlib.colors import to_rgb

    figure = posterior.predictive_panels(report, "gsm8k")
    figure.savefig(tmp_path / "predictive.png")
    checks = report["benchmarks"]["gsm8k"]["ppc"]
    assert len(figure.axes) == len(checks)
    for axis, check in zip(figure.axes, checks, strict=True):
        observed = next(line for line in axis.lines if line.get_label() == "observed")
        low, high = np.array(
            [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in axis.patches]
        ).T
        for part, drawn in (("observed", observed.get_ydata()), ("low", low), ("high", high)):
            np.testing.assert_allclose(drawn, np.array(check[part], dtype=float))
        medians = [line[0, 1] for line in axis.collections[0].get_segments() if len(line)]
        np.testing.assert_allclose(medians, [x for x in check["median"] if x is not None])
        assert f"p = {check['p_value']:.2g}" in axis.get_title()
        assert ("surprising" in axis.get_title()) == check["surprising"]
        assert (to_rgb(axis.title.get_color()) == to_rgb(style.RULE)) == check["surprising"]
        bottom, top = axis.get_ylim()
        assert bottom < np.nanmin(low) and top > np.nanmax(high)
    assert [x.get_text() for x in figure.axes[3].get_xticklabels()] == ["II", "CI", "IC", "CC"]
    assert figure.axes[0].get_xticks()[0] == 0 and figure.axes[1].get_xticks()[0] == 1
    assert {"predicted, 90 % interval", "observed"} <= set(texts(figure))


@pytest.mark.parametrize("draw", [posterior.curve_bands, posterior.predictive_panels])
def test_an_unknown_benchmark_is_named_with_those_there_are(draw, report):
    with pytest.raises(InputError, match="'math'; choose from gsm8k, stopped"):
        draw(report, "math")


def calibration(ranks):
    return {"model": "pooled", "simulations": 200, "draws": 99, "ranks": ranks}


def test_calibration_panels_show_ranks_and_bands(tmp_path):
    random = np.random.default_rng(0)
    names = ("p0", "p_ic", "p_ci", "p_K", "limit")
    ranks = {name: random.multinomial(200, np.full(10, 0.1)).tolist() for name in names}
    ranks["limit"] = [0] * 9 + [200]
    figure = posterior.calibration_panels(calibration(ranks))
    figure.savefig(tmp_path / "calibration.png")
    axes = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    curves = [axis for axis in figure.axes if not axis.get_title()]
    assert len(axes) == len(curves) == len(names)
    for axis, (name, counts) in zip(curves, ranks.items(), strict=True):
        stairs = next(x for x in axes[name].patches if x.get_label() == "ranks of the truth")
        np.testing.assert_array_equal(stairs.get_data().values, counts)
        np.testing.assert_array_equal(stairs.get_data().edges, np.arange(0, 101, 10))
        (curve,) = (x for x in axis.lines if x.get_label() == "ECDF of the ranks")
        expected = np.cumsum([0, *counts]) / 200 - np.linspace(0, 1, 11)
        np.testing.assert_allclose(curve.get_ydata(), expected)
        band = axis.collections[0].get_paths()[0].vertices
        outside = any(
            not band[band[:, 0] == x][:, 1].min() - 1e-9
            <= y
            <= band[band[:, 0] == x][:, 1].max() + 1e-9
            for x, y in zip(*curve.get_data(), strict=True)
        )
        assert outside == (name == "limit")
    span = next(x for x in axes["p0"].patches if x.get_label() == "99 % of uniform bins")
    low, high = scipy.stats.binom.ppf((0.005, 0.995), 200, 0.1)
    assert (span.get_y(), span.get_y() + span.get_height()) == (low, high)
    assert {"simulations", "ECDF less uniform\n(probability)"} <= set(texts(figure))


def test_the_band_holds_99_percent_of_uniform_ecdfs():
    """In fresh simulations; one count less at every edge, and it holds too few."""
    low, high = posterior.ecdf_band(200, 20)
    simulations = 20_000
    drawn = np.random.default_rng(1).multinomial(200, np.full(20, 0.05), simulations)
    below = np.cumsum(drawn, axis=1)[:, :-1]
    edges = 200 * np.linspace(0.05, 0.95, 19)
    fewest, most = (np.round(200 * x[1:-1] + edges) for x in (low, high))

    def share(less):
        return ((below >= fewest + less) & (below <= most - less)).all(axis=1).mean()

    variance = 0.99 * 0.01 * (1 / simulations + 1 / posterior.BAND_SIMULATIONS)
    tolerance = scipy.stats.norm.isf(FALSE_ALARM) * np.sqrt(variance)
    assert share(0) > 0.99 - tolerance and share(1) < 0.99 + tolerance


def test_ranks_that_do_not_add_up_are_refused():
    with pytest.raises(InputError, match="p0 sum to 199; give one rank for each of the 200"):
        posterior.calibration_panels(calibration({"p0": [100, 99]}))
