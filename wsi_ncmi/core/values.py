"""Texts of tables and names: one spelling, one reading of "no value", and what a terminal may be shown."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

# Blanks and characters without a width or look: zero-width space and joiners, byte-order mark, soft hyphen,
# marks of writing direction.
_UNSEEN = r"\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
_AROUND = re.compile(rf"^[\s{_UNSEEN}]+|[\s{_UNSEEN}]+$")
_DASHES = r"\-\u2010-\u2015\u2212"

# Bare "empty" and "blank" are names that slides have; in brackets they are a spreadsheet's.
# pandas, R, SAS, SQL; Excel's error cells in several languages; GDC, cBioPortal and TCGA's clinical tables.
_NO_VALUE = re.compile(
    rf"""[\[(<](blank|empty)[\])>] | [\[(<'"]*(
        | [{_DASHES}_.…?]+
        | n[ ]?/?[ ]?a | n\.[ ]?[ad]\.? | n/[dk] | [+-]?nan | nat | none | null | \\n
        | missing | undefined | unknown | unk | tbd | to[ ]be[ ]determined | not[ ]determined
        | un(known|specified)[ ]value
        | not[ ](reported|available|applicable|evaluated|specified|known|provided|recorded|stated
            |collected|allowed[ ]to[ ]collect)
        | \#(n/?[avd] | n/disp | getting_data | [\w/ ]+[!?]) | err:\d{{3}}
    )?[\])>'"]*""",
    re.VERBOSE,
)


def tidy(text: str) -> str:
    r"""The text in Unicode's composed form (NFC), without blanks and invisible characters around it.

    macOS stores ``ö`` in file names as two characters (NFD); tables mostly hold one.

    Example:
        >>> tidy(" Tumo\u0308r-1\u200b") == "Tum\u00f6r-1"
        True
    """
    if text.isascii():
        return text.strip()
    return _AROUND.sub("", unicodedata.normalize("NFC", text))


@lru_cache(maxsize=1 << 14)
def is_empty(text: str) -> bool:
    """Whether the text is empty or says that there is no value.

    Example:
        >>> [is_empty(text) for text in ("NA", "#N/A", "-", "[Not Available]", "Not Reported", "N", "+")]
        [True, True, True, True, True, False, False]
    """
    return _NO_VALUE.fullmatch(tidy(unicodedata.normalize("NFKC", text)).lower()) is not None


def spelling_key(text: str) -> str:
    """The same for texts that probably mean one thing, but not certainly.

    They differ only in case, blanks, ``_`` and ``-``, invisible characters, zeros before numbers, or forms of
    characters (such as full-width digits).

    Example:
        >>> spelling_key("Case_007") == spelling_key("case-7") == spelling_key("CASE 7.0")
        True
        >>> spelling_key("1-12") == spelling_key("11-2")
        False
    """
    text = re.sub(f"[{_UNSEEN}]", "", unicodedata.normalize("NFKC", text)).casefold().strip()
    text = re.sub(r"(?<=\d)\.0+$", "", text)  # a number that was once in a column with gaps
    between = rf"[\s_{_DASHES}]+"
    text = re.sub(rf"(?<=[^\W\d_]){between}(?=[^\W_])|(?<=\d){between}(?=[^\W\d_])", "", text)
    text = re.sub(rf"(?<=\d){between}(?=\d)", " ", text)
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


SUSPECT = "differ only in case, blanks, '_' or '-', zeros in front or invisible characters"
"""What ``spelling_key`` takes for the same, in words."""


def suspects(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ only as ``spelling_key`` says, in order of appearance."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(spelling_key(name), {})[name] = None
    return [tuple(group) for group in groups.values() if len(group) > 1]


def suspects_between(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Of names, those that differ from a known one only as ``spelling_key`` says → that one."""
    by_key = {spelling_key(name): name for name in known}
    pairs = ((name, by_key.get(spelling_key(name))) for name in names)
    return {name: found for name, found in pairs if found is not None and found != name}


def parse_number(text: str) -> float:
    """The number that a cell holds, also with a decimal comma; NaN where it holds none."""
    text = tidy(text)
    try:
        return float(re.sub(r"^([-+]?\d*),(\d+)$", r"\1.\2", text))
    except ValueError:
        return float("nan")


# Control characters, ends of line and paragraph, lone surrogates, what has no look or turns the direction.
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_CONTROLS = ("Cc", "Cs", "Zl", "Zp")
_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def printable(text: str) -> str:
    r"""The text with an escape in place of each character that a terminal would obey, or not show.

    Every text that leaves the program for a person's eyes goes through it: names of files, classes and
    columns come from others.

    Example:
        >>> print(printable("a\x1b[31mb\u202e\u200b.svs"))
        a\x1b[31mb\u202e\u200b.svs
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNPRINTABLE
        else character
        for character in text
    )


def printable_lines(text: str) -> str:
    """The same for a text of several lines, which stay lines."""
    return "\n".join(map(printable, text.split("\n")))


def holds_control(text: str) -> bool:
    """Whether a name holds what can't stand in a table.

    That is a control character, an end of line, half a surrogate pair, or one that turns the direction of
    writing. Other characters without a look, such as joiners, are part of some scripts.
    """
    return not text.isprintable() and any(
        unicodedata.category(character) in _CONTROLS or character in _TURNS for character in text
    )
