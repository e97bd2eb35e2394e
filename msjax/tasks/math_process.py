"""The process in which math-verify compares formulas, one request per line; see `math_equal`.

A request is a list of two formulas and the seconds of processor time for them; an empty list asks
whether the process has started. It is run as a script and imports nothing of this package.
"""

import io
import json
import logging
import signal
import sys
from typing import Any

MEMORY = 4 * 2**30  # bytes


def serve() -> None:
    """Answers one comparison per line until the input ends."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # Units are compared before; here "c" is a variable.
    reading = LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none"
        )
    )
    replies, sys.stdout = sys.stdout, io.StringIO()  # whatever a library prints is no reply
    for line in sys.stdin:
        equal = False
        try:
            texts = json.loads(line)
            if texts:
                *texts, deadline = texts
                _ends_after(deadline)
                # "$" marks a formula; the timer ends this process, so no time limits here.
                pair = [
                    parse(
                        f"${text}$",
                        [reading],
                        fallback_mode="no_fallback",
                        parsing_timeout=None,
                    )
                    for text in texts
                ]
                if all(pair):
                    equal = _equal_parsed(pair[0][0], pair[1][0], verify)
        except Exception:  # what a library cannot compare is not equal
            pass
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        print(json.dumps(bool(equal)), file=replies, flush=True)


def _ends_after(seconds: float) -> None:
    """Ends this process after so much processor time, in the midst of any computation."""
    if sys.platform != "win32":
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _equal_parsed(gold: Any, answer: Any, verify: Any) -> bool:
    """Equality of two parsed formulas: numbers to forty digits, all else as math-verify has it."""
    import sympy

    if not all(isinstance(one, sympy.Expr) and one.is_number for one in (gold, answer)):
        return bool(
            verify(
                gold, answer, float_rounding=15, allow_set_relation_comp=True, timeout_seconds=None
            )
        )
    one, other = _exact(gold), _exact(answer)
    if any(part in (sympy.zoo, sympy.nan) for part in (one, other)):
        return False  # division by zero is no number
    if one == other:
        return True
    if not (one.is_finite and other.is_finite):
        return False
    difference = sympy.N(one - other, 60, maxn=5000)
    scale = max(abs(sympy.N(one, 60)), abs(sympy.N(other, 60)))
    if abs(difference) <= scale * sympy.Float(10) ** -40:
        return True
    return _rounds(one, other) or _rounds(other, one)


def _exact(expression: Any) -> Any:
    """A number with its decimals as ratios."""
    import sympy

    floats = expression.atoms(sympy.Float)
    return expression.xreplace({one: sympy.Rational(str(one)) for one in floats})


def _rounds(decimal: Any, exact: Any) -> bool:
    """Whether a decimal is an irrational number rounded to six significant digits or more."""
    import sympy

    if not isinstance(decimal, sympy.Rational) or isinstance(exact, sympy.Rational):
        return False
    places, scaled = 0, decimal
    while scaled.q != 1 and places < 30:
        scaled, places = scaled * 10, places + 1
    if scaled.q != 1 or len(str(abs(scaled.p))) < 6 or not exact.is_real:
        return False
    return bool(abs(sympy.N(exact - decimal, 40)) <= sympy.Rational(1, 2 * 10**places))


if __name__ == "__main__":
    serve()
