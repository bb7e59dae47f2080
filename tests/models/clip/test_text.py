"""Captions are cleaned as open_clip does it."""

from __future__ import annotations

import time

import pytest

from models.clip.text import cleaned

# What open_clip 3.3.0's `_clean_whitespace` gives with ftfy 6.3.1. Its default, `_clean_lower`, makes that lower case.
OPEN_CLIP = {
    "tom &amp; jerry": "tom & jerry",
    "tom &amp;amp; jerry": "tom & jerry",
    "tom &amp;amp;amp; jerry": "tom & jerry",
    "<b>bold</b> &amp; tall": "<b>bold</b> & tall",
    "&eacute;t&eacute;": "\xe9t\xe9",
    "&nbsp;blank&nbsp;ed": "blank ed",
    "&#x1F600; smile": "\U0001f600 smile",
    "&unknown; entity": "&unknown; entity",
    "&amp": "&",
    "R&D &copy 2020": "R&D \xa9 2020",
    "&amp;lt;b&amp;gt;": "<b>",
    "&amp;#39;s": "'s",
    "&#0; &#128; &#150; &#xD800; &#1114112;": "\ufffd \u20ac \u2013 \ufffd \ufffd",
    "&AMP; &LT;": "& <",
    "&ampersand &notit; &not": "&ersand \xacit; \xac",
    "A &amp; B < C": "A & B < C",
    "&hellip;&mdash;&rsquo;s": "\u2026\u2014's",
    "&zwj;&shy;x": "\u200d\xadx",
    "&Tab;x&NewLine;y": "x y",
    "a &quot;quoted&quot; &#39;text&#39;": "a \"quoted\" 'text'",
    "&lt;script&gt;x&lt;/script&gt;": "<script>x</script>",
    "a dog\u2019s \u201cbone\u201d": 'a dog\'s "bone"',
    "l\u2018\xe9t\xe9": "l'\xe9t\xe9",
    "\xabguillemets\xbb \u201elow\u201c": '\xabguillemets\xbb "low"',
    "a \u2014 dash \u2013 en \u2011 nb-hyphen \u2212 minus": "a \u2014 dash \u2013 en \u2011 nb-hyphen \u2212 minus",
    "dots\u2026 more\u2026": "dots\u2026 more\u2026",
    "  many\n\t blanks here ": "many blanks here",
    "zero\u200bwidth\u200cjoiner\u200d bom\ufeffmid": "zero\u200bwidth\u200cjoiner\u200d bommid",
    "line sep para": "line sep para",
    "a\x01\x02b\x7fc control": "abc control",
    "a\x85b next line": "a\u2026b next line",
    "esc \x1b[31mred\x1b[0m text": "esc red text",
    "soft\xadhyphen": "soft\xadhyphen",
    "rtl \u202egnp.exe": "rtl \u202egnp.exe",
    "\ufb01ne \ufb02ag \ufb00 o\ufb03ce": "fine flag ff office",
    "\u0133 \u01c6": "ij d\u017e",
    "\xbd cup \xb2 \xb3 \u2460": "\xbd cup \xb2 \xb3 \u2460",
    "\uff26\uff35\uff2c\uff2c width\u3000\uff34\uff25\uff38\uff34": "FULL width TEXT",
    "\uff76\uff80\uff76\uff85 half": "\u30ab\u30bf\u30ab\u30ca half",
    "\U0001f600 smile \U0001f44d\U0001f3fd skin": "\U0001f600 smile \U0001f44d\U0001f3fd skin",
    "\U0001f3f3\ufe0f\u200d\U0001f308 pride": "\U0001f3f3\ufe0f\u200d\U0001f308 pride",
    "cafe\u0301 cre\u0300me bru\u0302le\u0301e": "caf\xe9 cr\xe8me br\xfbl\xe9e",
    "\xc5 ngstr\xf6m sign \xc5": "\xc5 ngstr\xf6m sign \xc5",
    "caf\xc3\xa9 mojibake": "caf\xe9 mojibake",
    "\xe2\u20ac\u0153quoted\xe2\u20ac\x9d": '"quoted"',
    "don\xe2\u20ac\u2122t": "don't",
    "\xc3\xbcber sch\xc3\xb6n": "\xfcber sch\xf6n",
    "\xf0\u0178\u02dc\u20ac emoji mojibake": "\U0001f600 emoji mojibake",
    "l\x92\xe9t\xe9 windows \x93x\x94": 'l\'\xe9t\xe9 windows "x"',
    "\xd0\u0178\xd1\u20ac\xd0\xb8\xd0\xb2\xd0\xb5\xd1\u201a": "\u041f\u0440\u0438\u0432\u0435\u0442",
    "\u0130stanbul ISTANBUL \u0131": "\u0130stanbul ISTANBUL \u0131",
    "stra\xdfe STRASSE \u1e9e": "stra\xdfe STRASSE \u1e9e",
    "\u01c5 titlecase": "D\u017e titlecase",
    "snake_case_name __init__": "snake_case_name __init__",
    "<|startoftext|> a cat": "<|startoftext|> a cat",
    "\ufffdreplacement": "\ufffdreplacement",
    "\ufdfa ligature arabic": "\ufdfa ligature arabic",
    "\u2116 \u2122 \xae \xa9": "\u2116 \u2122 \xae \xa9",
    "\u017flong s": "\u017flong s",
    "K kelvin": "K kelvin",
    "a\r\nb\rc": "a b c",
    "": "",
    "plain": "plain",
}


@pytest.mark.parametrize(("text", "expected"), OPEN_CLIP.items())
def test_as_open_clip_cleans(text: str, expected: str) -> None:
    assert cleaned(text, lower_case=False) == expected
    assert cleaned(text) == expected.lower()


def test_a_greek_word_keeps_its_last_sigma() -> None:
    """Hugging Face's tokenizers make each character lower case by itself, and have "\u03c3" there."""
    assert cleaned("\u039f\u0394\u039f\u03a3") == "\u03bf\u03b4\u03bf\u03c2"


def test_a_caption_behind_many_blanks_is_not_lost() -> None:
    assert cleaned(" " * 10_000 + "A cat\n" + "\t" * 10_000 + "and a dog") == "a cat and a dog"


@pytest.mark.parametrize("text", ["&amp;" * 20_000, "&" + "amp;" * 20_000, "\u00c3" * 60_000, "<" * 60_000])
def test_a_hostile_caption_costs_little(text: str) -> None:
    start = time.process_time()
    cleaned(text)
    assert time.process_time() - start < 2
