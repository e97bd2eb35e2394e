"""Figure: samples needed by OptScale's rule, over the distribution of the scores.

Reference: OptScale (arXiv 2506.22376), N*; docs/theory.md D2.
"""

from pathlib import Path

import numpy as np

from msjax.report.figures import style
from msjax.report.figures.sources import Sources
from msjax.theory.best_of_n import TruncatedNormal, samples_to_reach
from msjax.theory.chain import UNBOUNDED

__all__ = ["SAYS", "make"]

SAYS = "OptScale: samples needed, N*"

SETTINGS = ((0.85, 0.1), (0.9, 0.1), (0.95, 0.5))
"""Score wanted and confidence wanted."""
_LEVELS = (1, 2, 4, 8, 16, 32, 64)
_POINTS = 61


def make(_: Sources, stem: Path) -> None:
    """One panel per setting: N* over location and scale of a normal truncated to [0, 1]."""
    from matplotlib.patheffects import withStroke

    mu, sigma = np.linspace(0.3, 1.0, _POINTS), np.linspace(0.02, 0.4, _POINTS)
    rows = []
    with style.panels(len(SETTINGS), 3.0, 3.3) as (figure, axes):
        for axis, (s_min, confidence) in zip(axes, SETTINGS, strict=True):
            scores = TruncatedNormal(mu[None, :], sigma[:, None])
            needed = np.asarray(samples_to_reach(scores, s_min, confidence)).astype(float)
            needed[needed == UNBOUNDED] = np.inf
            shown = np.minimum(needed, _LEVELS[-1])
            mesh = axis.pcolormesh(
                mu, sigma, np.log2(shown), cmap="cividis", vmin=0, vmax=6, rasterized=True
            )
            lines = axis.contour(mu, sigma, shown, levels=_LEVELS[1:-1], colors="white")
            for text in axis.clabel(lines, fmt="%d", fontsize=8, colors="black"):
                text.set_path_effects([withStroke(linewidth=2, foreground="white")])
                text.set_rotation(0)
            axis.set_title(f"score wanted {s_min:g}\nconfidence {confidence:g}")
            axis.set_xlabel(r"location $\mu$ of the scores")
            axis.grid(False)
            rows += [
                {
                    "s_min": s_min,
                    "confidence": confidence,
                    "mu": round(float(m), 6),
                    "sigma": round(float(s), 6),
                    "samples": int(n) if np.isfinite(n) else "unbounded",
                }
                for s, line in zip(sigma, needed, strict=True)
                for m, n in zip(mu, line, strict=True)
            ]
        bar = figure.colorbar(mesh, ax=axes[-1], ticks=range(7), label="samples needed, $N^*$")
        bar.ax.set_yticklabels([str(n) for n in _LEVELS[:-1]] + ["64+"])
        axes[0].set_ylabel(r"scale $\sigma$ of the scores")
        style.save(figure, stem, rows, "ours, closed form (docs/theory.md D2); exact, no sampling")
