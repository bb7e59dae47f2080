"""Other ways to say a caption: "a rocket on a blue background" -> "emoji of a rocket, blue background"."""

from __future__ import annotations

import re

from examples.emoji.captions import head

ARTICLE = re.compile(r"^an? ")
# {a} is the subject with its article, {n} without, {p} in the plural, {b} the background, {ab} with its article
CANONICAL = "{a} on {ab} background"
VARIANTS = (
    "{n} on {ab} background",
    "emoji of {a}, {b} background",
    "emoji of {a} on {ab} background",
    "{a}, {b} background",
    "{n}, {b} background",
    "{n} on {b}",
    "{n} {b} background",
    "{a} in front of {ab} background",
    "a picture of {a} on {ab} background",
    "{b} background, {a}",
)
NO_BACKGROUND = ("{a}", "{n}", "emoji of {a}")


def subject(caption: str, background: str) -> str:
    """ "a rocket on a blue background", "blue" -> "a rocket". Raises `ValueError` for another kind of caption."""
    article = "an" if background[0] in "aeiou" else "a"
    ending = f" on {article} {background} background"
    if not caption.endswith(ending):
        raise ValueError(f"caption {caption!r} does not end in {ending!r}")
    return caption.removesuffix(ending)


def plural(thing: str) -> str:
    """ "a red apple" -> "red apples"; things without an article, and those whose last word is not the head, stay."""
    name = ARTICLE.sub("", thing)
    if name == thing or head(name) != name:
        return name
    if re.search(r"(s|x|z|ch|sh)$", name):
        return f"{name}es"
    return re.sub(r"(?<=[^aeiou])y$", "ie", name) + "s"


def say(template: str, thing: str, background: str) -> str:
    """Fill a template in; `thing` comes with its article, if it has one."""
    article = "an" if background[0] in "aeiou" else "a"
    name = ARTICLE.sub("", thing)
    return template.format(a=thing, n=name, p=plural(thing), b=background, ab=f"{article} {background}")


def all_captions(thing: str, background: str) -> list[str]:
    """Every way to say it, the data set's own first."""
    return [say(template, thing, background) for template in (CANONICAL, *VARIANTS, *NO_BACKGROUND)]
