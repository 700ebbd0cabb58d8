"""The error that a user can mend."""


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and how to mend it.

    The command line prints it without a traceback and exits with code 2.
    """
