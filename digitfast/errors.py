"""What digitfast raises when something a person gave it cannot be used."""


class DigitError(Exception):
    "A mistake that its message explains: what was given, what is allowed, what to try. The base of all below."


class DataNotFound(DigitError, FileNotFoundError):
    "There are no digits at the place that was named, or they could not be fetched."


class BadData(DigitError, ValueError):
    "The digits are there but cannot be used as they are: a missing split, an empty class, a damaged archive."


class BadImage(DigitError, ValueError):
    "A picture that cannot be read, or an array of another shape or range than a picture's."


class UnknownName(DigitError, ValueError):
    "A name that is in no registry: of an architecture, an optimiser, a schedule, a named run."


class BadSetting(DigitError, ValueError):
    "A setting of an unknown name, or a value out of its range."


class Diverged(DigitError, ArithmeticError):
    "A training whose loss is no longer a number."


class ProcessEnded(DigitError, RuntimeError):
    "Of several processes that work together, another one has ended, so that this one cannot go on."


class RunNotFound(DigitError, FileNotFoundError):
    "There is no finished run or learner file at the place that was named."
