"""What a right answer is worth and a token costs, asked in the same words by every command."""

from dataclasses import dataclass

from msjax.errors import InputError, require_value_and_cost

__all__ = ["Prices"]


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Options of commands that weigh accuracy against tokens; no price unless one is given."""

    worth: float | None = None
    """Worth of a right answer, in any unit of money."""
    price: float | None = None
    """Price of one uncached token in the unit of --worth; with both, net value decides. Without,
    accuracy decides, then tokens."""
    dollars_per_million_tokens: float | None = None
    """The price as it is on price lists, in place of --price; --worth is then in dollars."""

    def worth_and_price(self) -> tuple[float, float | None]:
        """What a right answer is worth, 1 if that was not said, and a token costs, None likewise.

        Raises:
            InputError: both prices, a price without a worth, or a number out of range.
        """
        price, option = self.price, "--price"
        if self.dollars_per_million_tokens is not None:
            if price is not None:
                raise InputError("--price and --dollars-per-million-tokens: give one of them")
            price, option = self.dollars_per_million_tokens / 1e6, "--dollars-per-million-tokens"
        require_value_and_cost(self.worth, named="--worth", **{option: price})
        return 1.0 if self.worth is None else self.worth, price
