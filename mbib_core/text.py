"""Names come from files that anyone may have made: made harmless for a terminal, a page of Markdown, a spreadsheet."""

import re
import unicodedata
from html import escape

DIRECTIONS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)  # bidirectional controls


def printable(text: object, *, keep: str = "") -> str:
    """`text` with control characters, bidirectional controls and bytes that are not UTF-8 as escapes such as \\x1b.

    Nothing of it moves a terminal's cursor, and it can be encoded. Characters in `keep` stay as they are.
    """
    return "".join(c if c in keep or not _acts(c) else c.encode("unicode_escape").decode() for c in str(text))


def markdown(text: object) -> str:
    """`text` as one line of plain words: no Markdown, HTML, formula or link in it comes to life, nor in a table."""
    line = escape(printable(" ".join(str(text).split())), quote=False)
    line = re.sub(r"[\\`*~$|\[\]]", r"\\\g<0>", line)
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", line)  # within a word it stands for itself
    return re.sub(r"(?i)\b(www)\.|://", lambda found: rf"{found[1]}\." if found[1] else r":\//", line)


def code(text: object) -> str:
    """`text` as a code span of Markdown, whatever backticks it holds."""
    line = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def block(text: object) -> str:
    """`text` as a block of code of Markdown, in one line, whatever backticks it holds."""
    line = printable(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence}\n{line}\n{fence}"


def cell(text: object) -> str:
    """`text` for a cell of CSV: what a spreadsheet would run as a formula starts with an apostrophe."""
    return f"'{text}" if str(text).startswith(("=", "+", "-", "@", "\t", "\r")) else str(text)


def listed(names: list[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _acts(c: str) -> bool:
    return c in DIRECTIONS or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
