"""The time zones that a person may choose: places, by their IANA names, and UTC."""

from zoneinfo import available_timezones

ZONES: tuple[str, ...] = (
    "UTC",
    *sorted(
        name
        for name in available_timezones()
        if "/" in name and not name.startswith(("Etc/", "SystemV/", "posix/", "right/"))
    ),
)
