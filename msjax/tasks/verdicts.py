"""Verdicts on an earlier answer: "your answer 12 is incorrect; it is 15", "yes, that is correct".

A revision speaks of the answer it was shown. What it rejects is not its answer, and what it calls
correct without saying it again is the earlier one.
"""

import re
from typing import NamedTuple

__all__ = ["Judged", "judged"]

_NOUN = (
    r"(?:answer|result|solution|response|value|calculation|computation|attempt|conclusion|reasoning"
    r"|work)"
)
_FAULTS = r"(?:errors?|mistakes?|problems?|issues?|flaws?)"
_OLD = r"(?:previous(?:ly)?|earlier|initial(?:ly)?|original(?:ly)?|prior|old|first|last|former)"
_WRONG = (
    r"(?:incorrect|wrong|mistaken|erroneous|inaccurate|invalid|in error|false|too (?:high|low)"
    r"|not\s+(?:(?:quite|actually|entirely|in fact)\s+)?(?:correct|right|accurate|valid))"
)
_RIGHT = r"(?:correct|right|accurate|valid|unchanged|the same)"
_ADVERB = (
    r"(?:(?:indeed|still|also|in fact|actually|absolutely|completely|therefore|already|both)\s+)*"
)
_INSIDE = r"(?:[^.!?;\n]|\.(?=\d))"  # of one clause
_BE = (
    r"(?:\bis|\bwas|\bare|\bwere|'s|\bseems?(?: to be)?|\bappears?(?: to be)?|\bremains?|\bstays?)"
)
_NOT = (
    r"(?:\bis not|\bisn't|\bwas not|\bwasn't|\bcannot be|\bcan't be|\bcould not be|\bshould not be)"
)
_ITEM = (
    r"(?:\$?\\boxed\s*\{[^{}]*\}\$?|\*{0,2}\(?(?-i:[A-J])\)?\*{0,2}(?![A-Za-z'])"
    r"|(?:\d[\d.,]{0,20}\s?[-+*/\u00d7]\s?){0,8}[\"'*]{0,3}\\?\$?-?\$?\d[\d,./]{0,30}(?:\^\{?\d{1,9}\}?)?\s?\\?%?\$?[\"'*]{0,3}(?:\s+(?!is\b|was\b|but\b)[a-z]{3,12})?)"
)
# "The answer is not 12 but 15" is "the answer is 15".
_NOT_BUT = re.compile(
    rf"({_BE}|\bshould be|:)\s*not\s+{_ITEM}\s*,?\s*(?:but(?:\s+rather)?|rather)\s+", re.IGNORECASE
)
# "Neither A nor B but C" is "C".
_NEITHER_BUT = re.compile(
    rf"\bneither\s+{_ITEM}(?:\s*,?\s*(?:nor|or)\s+{_ITEM}|\s*,\s*{_ITEM}){{1,4}}\s*,?\s*but\s+(?:rather\s+)?",
    re.IGNORECASE,
)
_REJECTED = re.compile(
    rf"(?:\b(?:my|your|the|that|this|our)\s+(?:\w+\s+){{0,2}})?\b{_NOUN}\b"
    rf"(?:(?!{_BE}|\bbecause|\bsince|\bas\b){_INSIDE}){{0,60}}{_BE}\s+(?:\w+\s+){{0,2}}?{_WRONG}\b"
    rf"|\b{_NOUN}\s+{_NOT}\s+{_ITEM}"
    rf"|(?<![\w.]){_ITEM}\s*(?:{_BE}\s+{_ADVERB}{_WRONG}|{_NOT}\s+(?:correct|right|the\s+(?:correct\s+|right\s+)?answer))\b"
    rf"|\b(?:option|choice)\s+{_ITEM}\s+{_BE}\s+{_WRONG}\b",
    re.IGNORECASE,
)
_INSTEAD = re.compile(
    rf",?\s{{0,2}}\(?(?:and\s)?\b(?:not|rather than|instead of)\s+{_ITEM}\)?", re.IGNORECASE
)
# "; it is 15" after a rejection is a statement.
_IT_IS = re.compile(
    r"[\s;,.:!\u2014-]*(?:\band\b|\bbut\b|\bso\b|\binstead\b)?[\s,]*"
    r"\b(?:it|this|that|the\s+(?:correct|right|actual|true|real|new)\s+\w+)\s*"
    r"(?:\bis|'s|\bshould\s+be|\bmust\s+be|\bequals|\bought\s+to\s+be)\s+(?=[^\n]{0,6}[\d\\(]|[A-J]\b)",
    re.IGNORECASE,
)
_REFERRED = re.compile(
    rf"\b(?:{_OLD}\s+(?:{_NOUN}|said|got|gave|stated|calculated|found|wrote|had|answered)"
    rf"|your\s+{_NOUN})\s*(?:of|was|is|:|as|to be)?\s*{_ITEM}"
    rf"|\(\s*(?:previously|formerly|originally|before|earlier)\W+{_ITEM}\s*\)",
    re.IGNORECASE,
)
_AFFIRMED = re.compile(
    rf"\b(?:{_OLD}\s+{_NOUN}|(?:my|your|the|that|this)\s+(?:\w+\s+)?{_NOUN})"
    rf"(?:\s+(?:above|given|provided))?(?P<of>\s*(?:of|,|:|\(|=)?\s*{_ITEM})?\)?,?\s*{_BE}\s+{_ADVERB}{_RIGHT}\b"
    rf"|(?:^|(?<=[.!?,:\n]))\s*(?:yes|indeed|right|correct)?[,.!:]?\s*\b(?:that|it|this)\s*{_BE}\s+{_ADVERB}{_RIGHT}\b"
    r"|\A[\W_]*(?:yes[\W_]+)?(?:that(?:'s|\s+is)\s+)?(?:correct|right)[\W_]*\Z"
    rf"|(?<![\w.])(?P<item>{_ITEM})\s*{_BE}\s+{_ADVERB}{_RIGHT}\b"
    rf"|\b(?:keep(?:ing)?|stand(?:ing)?\s+by|stick(?:ing)?\s+(?:with|to)|confirm|maintain|retain)\s+"
    rf"(?:my|the|that|your|this)\s+(?:\w+\s+)?{_NOUN}\b(?!\s*(?:of|is|:))"
    rf"|\b(?:my|the)\s+(?:\w+\s+)?{_NOUN}\s+(?:(?:remains|stays|is)\s+(?:unchanged|the\s+same)"
    r"|(?:still\s+)?(?:stands|holds))\b"
    r"|\bno\s+(?:changes?|revisions?|corrections?)\s+(?:(?:is|are)\s+)?(?:needed|necessary|required)\b"
    rf"|\b(?:found|find|see|there (?:is|are|were))\s+no\s+{_FAULTS}\b"
    rf"|\b(?:did|do|could|can)(?:\s?not|n['\u2019]t)\s+(?:see|find|spot|notice)\s+any\s+{_FAULTS}\b"
    rf"|\bno\s+{_FAULTS}\s+(?:(?:was|were)\s+)?(?:found|detected|spotted)\b"
    rf"|\b(?:everything|all(?:\s+(?:of\s+it|(?:the\s+)?steps))?)\s+(?:checks?\s+out|looks?\s+(?:good|{_RIGHT})"
    rf"|(?:{_BE})\s+{_ADVERB}{_RIGHT})\b"
    rf"|\b(?:checked|verified|reviewed)\s+[^.!?\n]{{1,60}}\band\s+(?:it|everything|they)\s*(?:{_BE}|\bare|\blooks?)\s+{_ADVERB}{_RIGHT}\b"
    rf"|\b(?:will|would|do|shall)(?:\s+not|n['\u2019]t)\s+(?:need\s+to\s+)?(?:change|revise|alter)\s+(?:my|the)\s+{_NOUN}\b"
    rf"|\b(?:won['\u2019]t|need\s+not)\s+(?:change|revise|alter)\s+(?:my|the)\s+{_NOUN}\b"
    rf"|\b(?:confident\s+in|certain\s+of|sure\s+of|agree\s+with)\s+(?:my|the|that|your|this)\s+(?:\w+\s+)?{_NOUN}\b"
    r"(?!\s*(?:of|is|:))"
    rf"|\b(?:the\s+)?same\s+{_NOUN}(?:\s+as\s+(?:before|earlier|previously))?(?=\s*(?:[.!;\n]|$))",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"(?:\bnot|n't)\s+(?:\w+\s+)?(?:sure|certain|confident|convinced|think|believe|say|agree)\b[^.!?\n]*$"
    r"|\b(?:unsure|doubt\w*|not|n't)\s+[^.!?\n]{0,20}$"
    r"|\b(?:if|whether|hope|check|verify|ensure|assum\w+|suppose|unless|make sure|see"
    r"|believe that you)\b[^.!?\n]*$",
    re.IGNORECASE,
)
_TURNED = re.compile(rf"\b(?:however|mistake|actually|wait|{_WRONG})\b", re.IGNORECASE)


class Judged(NamedTuple):
    """A text without its verdicts.

    Attributes:
        text: what is left, with what was rejected taken out.
        affirmed: what is called correct, in its words; "" where that is the earlier answer; None
            where nothing is.
    """

    text: str
    affirmed: str | None


def judged(text: str) -> Judged:
    """Takes verdicts on an answer out of a text, and says what they affirm.

    Args:
        text: what is said aloud.
    """
    text = _NEITHER_BUT.sub("", text)
    text = _NOT_BUT.sub(lambda found: found[1] + " ", text)
    text = _without_rejected(text)
    text = _INSTEAD.sub("", text)
    affirmed: str | None = None
    parts: list[str] = []
    at = 0
    for found in _AFFIRMED.finditer(text):
        if _UNSURE.search(text[max(0, found.start() - 80) : found.start()]):
            continue
        if not _TURNED.search(text[found.end() :]):
            affirmed = found["of"] or found["item"] or ""
        parts.append(text[at : found.start()])
        at = found.end()
    text = " ".join([*parts, text[at:]])
    referred = _REFERRED.sub(" ", text)
    return Judged(referred if re.search(r"\d|\b[A-HJ]\b", referred) else text, affirmed)


def _without_rejected(text: str) -> str:
    parts: list[str] = []
    at = 0
    for found in _REJECTED.finditer(text):
        if found.start() < at:
            continue
        if _UNSURE.search(text[max(0, found.start() - 80) : found.start()]):
            continue
        parts.append(text[at : found.start()])
        at = found.end()
        if (stated := _IT_IS.match(text, at)) is not None:
            parts.append(". The answer is ")
            at = stated.end()
    return "".join([*parts, text[at:]])
