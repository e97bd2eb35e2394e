"""Token accounts: what one request cost, split by what a bill or a GPU would charge for."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

# A million million: whatever claims more miscounts, and sums stay exact.
_Tokens = Annotated[int, Field(ge=0, le=10**12)]


class Usage(BaseModel):
    """Tokens of one completion request.

    `prompt` is every token the model was conditioned on, `cached` the part of it that was read
    from the KV cache, `completion` the tokens sampled, `verifier` what another model read to score
    the answer. All in tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: _Tokens
    cached: _Tokens
    completion: _Tokens
    verifier: _Tokens = 0

    @model_validator(mode="after")
    def _cached_is_part_of_prompt(self) -> "Usage":
        if self.cached > self.prompt:
            raise ValueError(f"cached tokens ({self.cached}) exceed prompt tokens ({self.prompt})")
        return self

    @property
    def computed(self) -> int:
        """Tokens that had to be processed: uncached prompt + completion + verifier.

        This is the count that prices, savings and plots of msjax use unless they say otherwise.
        """
        return self.prompt - self.cached + self.completion + self.verifier


def total(usages: Iterable[Usage]) -> Usage:
    """Sum of accounts, category by category."""
    found = list(usages)
    # A sum may exceed what one request can.
    return Usage.model_construct(
        prompt=sum(usage.prompt for usage in found),
        cached=sum(usage.cached for usage in found),
        completion=sum(usage.completion for usage in found),
        verifier=sum(usage.verifier for usage in found),
    )
