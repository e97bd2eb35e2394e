"""The one exception that means: the caller gave something that cannot be used."""


class InputError(ValueError):
    """Bad input: the message names the field, the value found and the remedy.

    Commands turn it into one line on standard error and exit status 2.
    """
