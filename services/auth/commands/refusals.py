"""What several commands refuse with."""

from mesh import errors


def wrong_password() -> errors.Unauthenticated:
    """The one answer to a wrong name and to a wrong password."""
    return errors.Unauthenticated("WRONG_PASSWORD", "wrong username, email or password")


def session_ended() -> errors.Unauthenticated:
    """The answer to an access token whose session is over."""
    return errors.Unauthenticated("INVALID_CREDENTIALS", "the session has ended; log in again")


def session_over() -> errors.Unauthenticated:
    """The error of what runs for a session that has ended."""
    return errors.Unauthenticated("SESSION_ENDED", "the session has ended")


def account_over() -> errors.Unauthenticated:
    """The error of what runs for an account that may not call any more."""
    return errors.Unauthenticated("ACCOUNT_ENDED", "the account is gone")
