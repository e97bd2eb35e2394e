"""Token accounts: what one request cost, split by what a bill or a GPU would charge for."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Usage", "believed", "total", "uncached_tokens"]

# A million million: whatever claims more miscounts, and sums stay exact.
MOST_TOKENS = 10**12
_Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]


class Usage(BaseModel):
    """Tokens of one completion request; None is a count that was not reported.

    `prompt` is every token the model was conditioned on, `cached` the part of it that was read
    from the KV cache, `completion` the tokens sampled, thoughts included, `verifier` what another
    model read to score the answer; `total` is the uncached tokens of all kinds where nobody told
    them apart. All in tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: _Tokens | None = None
    cached: _Tokens | None = None
    completion: _Tokens | None = None
    verifier: _Tokens | None = 0
    total: Annotated[_Tokens | None, Field(exclude_if=lambda count: count is None)] = None

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """A number by itself is the total, and nothing an account that reports nothing."""
        if isinstance(value, int) and not isinstance(value, bool):
            return {"total": value}
        return {} if value is None else value

    @model_validator(mode="after")
    def _cached_is_part_of_prompt(self) -> "Usage":
        if None not in (self.cached, self.prompt) and (self.cached or 0) > (self.prompt or 0):
            raise ValueError(f"cached tokens ({self.cached}) exceed prompt tokens ({self.prompt})")
        return self

    @property
    def uncached_prompt(self) -> int | None:
        """Tokens of the prompt that had to be processed: all of them where no cache is reported."""
        return None if self.prompt is None else self.prompt - (self.cached or 0)

    @property
    def uncached(self) -> int | None:
        """Billable tokens: uncached prompt + completion + verifier; None if one is not reported.

        This is the count that prices, savings and plots of msjax use unless they say otherwise.
        """
        if self.total is not None:
            return self.total
        parts = [self.uncached_prompt, self.completion, self.verifier]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


def believed(usage: Usage, *, answered: bool) -> Usage:
    """The account without what cannot be: nothing is answered to a prompt of 0 tokens, nor in 0.

    Such counts become None. What was not answered may have cost nothing, since a request that is
    longer than the context computes nothing.

    Args:
        usage: as it was reported.
        answered: whether the request has a text or an answer.
    """
    cannot_be: dict[str, None] = {}
    if usage.prompt == 0 and (answered or usage.completion):
        cannot_be |= {"prompt": None, "cached": None}
    if usage.completion == 0 and answered:
        cannot_be |= {"completion": None}
    if usage.total == 0 and answered:
        cannot_be |= {"total": None}
    return usage.model_copy(update=cannot_be) if cannot_be else usage


def total(usages: Iterable[Usage | None]) -> Usage:
    """Sum of accounts, category by category; None where a count that the sum needs is missing.

    What is not reported as cached counts as not cached; None only if no account reports it.
    """
    accounts = [Usage() if usage is None else usage for usage in usages]
    cached = [usage.cached for usage in accounts if usage.cached is not None]
    # A sum may exceed what one request can.
    return Usage.model_construct(
        prompt=_sum(usage.prompt for usage in accounts),
        cached=sum(cached) if cached or not accounts else None,
        completion=_sum(usage.completion for usage in accounts),
        verifier=_sum(usage.verifier for usage in accounts),
    )


def uncached_tokens(usages: Iterable[Usage | None]) -> float:
    """Billable tokens of all these requests; NaN if a count is not reported."""
    count = _sum(None if usage is None else usage.uncached for usage in usages)
    return float("nan") if count is None else float(count)


def _sum(counts: Iterable[int | None]) -> int | None:
    known = 0
    for count in counts:
        if count is None:
            return None
        known += count
    return known
