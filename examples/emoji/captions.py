"""English for a glyph and for an image: "rocket", "a rocket on a blue background"."""

from __future__ import annotations

import re

HEAD_ENDS = {"with", "of", "in", "on", "behind", "over", "and", "without", "at", "but", "under", "not", "or", "for"}
SINGULAR_ENDINGS = ("ss", "us", "is", "as", "biceps", "rhinoceros")  # glass, cactus, tennis, canvas
PLURAL_STARTS = {"men", "women", "people"}
NO_ARTICLE_NAMES = """
Aquarius|Aries|Cancer|Capricorn|Gemini|Leo|Libra|Ophiuchus|Pisces|Sagittarius|Scorpio|Taurus|Virgo
Santa Claus|Mrs. Claus|ZZZ|om|mount fuji|Tokyo tower|bacon|badminton|bald|baseball|basketball|bowling|bread
breast-feeding|broccoli|butter|camping|cooked rice|cooking|copyright|coral|cricket|curly hair|curry rice|dark skin tone
divide|dizzy|field hockey|fire|fog|foggy|fondue|fried shrimp|garlic|green salad|high voltage|ice|ice hockey|infinity
information|lacrosse|leafy green|left luggage|light skin tone|litter in bin sign|locked|locked with key|locked with pen
mate|medium skin tone|medium-dark skin tone|medium-light skin tone|minus|multiply|nail polish|non-potable water|oden
passport control|ping pong|plus|popcorn|potable water|pouring liquid|radioactive|red hair|registered
horse racing|input latin lowercase|input latin uppercase|Statue of Liberty|rolling on the floor laughing
sake|salt|shaved ice|soap|softball|spaghetti|sushi|tennis|unlocked|volleyball
white hair|wireless|wood|yarn
"""
NO_ARTICLE = frozenset(NO_ARTICLE_NAMES.replace("\n", "|").split("|"))
AN = re.compile(r"(?!uni|eu|ewe|one\b|one-|UP!)[aeiouAEIOU]|hour|x-|NG\b|SOS\b")


def single_code_point_names() -> dict[str, str]:
    """Every emoji of one code point -> its cleaned English name, from the `emoji` package."""
    import emoji  # imported here: everything else works without the package

    return {text: clean_name(entry["en"]) for text, entry in emoji.EMOJI_DATA.items() if len(text) == 1}


def clean_name(alias: str) -> str:
    """ ":red_apple:" -> "red apple"."""
    return " ".join(alias.strip(":").replace("_", " ").replace("\u2019", "'").split())


def head(name: str) -> str:
    """The words that decide about number: "leaf fluttering in wind" -> "leaf", "house with garden" -> "house"."""
    words = name.split()
    for i, word in enumerate(words):
        gerund = word.endswith("ing") and i + 1 < len(words) and words[0] in {"person", "leaf", "globe", "cat", "face"}
        if i and (word in HEAD_ENDS or gerund):
            return " ".join(words[:i])
    return name


def with_article(name: str) -> str:
    """ "rocket" -> "a rocket", "owl" -> "an owl", "grapes" -> "grapes", "fog" -> "fog"."""
    subject = head(name)
    last = subject.split()[-1]
    plural = last.endswith("s") and not last.endswith(SINGULAR_ENDINGS)
    no_article = name in NO_ARTICLE or "o'clock" in name or name.endswith("-thirty") or name.startswith("no ")
    if no_article or name.split()[0] in PLURAL_STARTS or (plural and not name.startswith("person ")):
        return name
    return f"{'an' if AN.match(name) else 'a'} {name}"


def caption(name: str, background: str) -> str:
    """ "rocket", "blue" -> "a rocket on a blue background"."""
    return f"{with_article(name)} on {'an' if AN.match(background) else 'a'} {background} background"
