"""The errors of commands that are shown by their message alone."""


class OperationRefused(Exception):
    """The arguments, the configuration or the files they name cannot be used: the message says why."""


class OperationFailed(Exception):
    """The work was begun and failed: the message says at what, and what to do."""
