"""What people call themselves, as forms take it: some words on one line, which can be shown."""

from collections.abc import Mapping

from markupsafe import Markup

from service.words.pages import Voice

NAME_CHARACTERS = 100


def wrong_names(
    voice: Voice, names: Mapping[str, str], limit: int = NAME_CHARACTERS
) -> dict[str, Markup]:
    """What is wrong with these names, by field, in words that say how to mend it."""
    found = {}
    for field, name in names.items():
        if not name:
            found[field] = voice.say("field.required")
        elif len(name) > limit:
            found[field] = voice.say("field.too_long", limit=str(limit))
        elif not name.isprintable():
            found[field] = voice.say("field.unprintable")
    return found
