"""The time as documents hold it."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Now, aware, in UTC, in whole milliseconds: what BSON keeps, so that a time read back equals the one written."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
