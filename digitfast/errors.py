"""Errors that digitfast raises for input that it cannot use."""


class DigitError(Exception):
    "Base of all errors below; the message says what was given, what is allowed and what to try."


class DataNotFound(DigitError, FileNotFoundError):
    "No digits were found in the given place, or they could not be fetched."


class BadData(DigitError, ValueError):
    "Digits that cannot be used as they are: a missing split, an empty class, a damaged archive."


class BadImage(DigitError, ValueError):
    "A picture that cannot be read, or an array without a picture's shape or range."


class UnknownName(DigitError, ValueError):
    "An unknown name: of an architecture, an optimiser, a schedule or a named run."


class BadSetting(DigitError, ValueError):
    "An unknown setting, or a value outside its range."


class Diverged(DigitError, ArithmeticError):
    "The loss of a training run is no longer a number."


class ProcessEnded(DigitError, RuntimeError):
    "Another of several cooperating processes has ended, so this one cannot continue."


class RunNotFound(DigitError, FileNotFoundError):
    "No finished run or learner file was found in the given place."
