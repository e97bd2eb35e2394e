"""Token accounts: what one request cost, split by what a bill or a GPU would charge for."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, NonNegativeInt, model_validator


class Usage(BaseModel):
    """Tokens of one completion request.

    `prompt` is every token the model was conditioned on, `cached` the part of it that was read
    from the KV cache, `completion` the tokens sampled. All in tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: NonNegativeInt
    cached: NonNegativeInt
    completion: NonNegativeInt

    @model_validator(mode="after")
    def _cached_is_part_of_prompt(self) -> "Usage":
        if self.cached > self.prompt:
            raise ValueError(f"cached tokens ({self.cached}) exceed prompt tokens ({self.prompt})")
        return self

    @property
    def computed(self) -> int:
        """Tokens the model had to process: uncached prompt + completion.

        This is the count that prices, savings and plots of msjax use unless they say otherwise.
        """
        return self.prompt - self.cached + self.completion


def total(usages: Iterable[Usage]) -> Usage:
    """Sum of accounts, category by category."""
    prompt = cached = completion = 0
    for usage in usages:
        prompt += usage.prompt
        cached += usage.cached
        completion += usage.completion
    return Usage(prompt=prompt, cached=cached, completion=completion)
