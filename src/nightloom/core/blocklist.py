"""What must never be shown: ids of items, values of columns, and whole words; read from `<mlruns>/blocklists/<name>.yaml`.

    items: [tt0123456]
    values: {genres: [Adult], studio: ["No Such Studio"]}
    words: ["some phrase", 某词]

Texts are compared after Unicode's compatibility normalisation (NFKC), without invisible characters and in any case: a full-width or
broken-up spelling is the same word. A word counts whole, between what are no letters or digits; in Chinese, Japanese and Korean, which
put no blanks between words, wherever it stands. The list says what is blocked, and nothing else blocks: see `nightloom.core.suspects`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightloom.core.errors import InputError

FOLDER = "blocklists"
VARIABLE = "NIGHTLOOM_BLOCKLIST"
"""Environment variable that names another file, for models that are asked outside their mlruns folder."""
TOLD = ("items", "values", "words")
INVISIBLE = dict.fromkeys([0xAD, 0x34F, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF])
"""Characters that nobody sees: soft hyphen, zero-width blanks and joiners, marks of direction, byte order mark."""
TOGETHER = re.compile(r"[\u2e80-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
"""A character of a script that is written without blanks."""


def blocklist_of(root: Path, name: str) -> Path:
    """Where the list of a recommender lies.

    Args:
        root: the mlruns folder.
        name: of the recommender.
    """
    return root / FOLDER / f"{name}.yaml"


def normal(text: str) -> str:
    """A text as it is compared."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(INVISIBLE).casefold()).split())


@dataclass(frozen=True)
class Blocklist:
    """What is blocked.

    Attributes:
        items: ids, as they are.
        values: column -> values, as they are compared.
        words: words and phrases, as they are compared.
    """

    items: frozenset[str] = frozenset()
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)
    words: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: Path | None) -> Blocklist:
        """Read a list; nothing is blocked where there is no file.

        Raises:
            InputError: the file is none; names the key and what to write.
        """
        if path is None or not path.is_file():
            return cls()
        import yaml  # here, since a model that nothing is kept from does without

        try:
            said = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: it can not be read ({error}). Write YAML with the keys {', '.join(TOLD)}.") from error
        if not isinstance(said, dict) or set(said) - set(TOLD):
            unknown = sorted(map(str, set(said) - set(TOLD))) if isinstance(said, dict) else [type(said).__name__]
            raise InputError(f"{path}: {', '.join(unknown)} is none of its keys. Write {', '.join(TOLD)}.")
        values = said.get("values") or {}
        if not isinstance(values, dict):
            raise InputError(f"{path}: values: write column: [value, ...].")
        return cls(
            frozenset(_texts(said.get("items"), path, "items")),
            {str(column): frozenset(map(normal, _texts(one, path, f"values.{column}"))) for column, one in values.items()},
            frozenset(map(normal, _texts(said.get("words"), path, "words"))),
        )

    def __bool__(self) -> bool:
        return bool(self.items or self.values or self.words)

    @property
    def digest(self) -> str:
        """Of what is blocked; empty where nothing is. What is made with one list is made anew with another."""
        if not self:
            return ""
        said = [sorted(self.items), sorted((column, sorted(values)) for column, values in self.values.items()), sorted(self.words)]
        return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()

    def reason(self, item_id: str, columns: Mapping[str, Any], separator: str = "|") -> str | None:
        """Why an item is blocked; None where it is not.

        Args:
            item_id: its id.
            columns: all that is known of it; cells are texts, numbers or lists, tags of one text apart by the separator.
            separator: between tags.
        """
        if item_id in self.items:
            return "its id"
        for column, blocked in self.values.items():
            if column in columns and not blocked.isdisjoint(_cell(columns[column], separator)):
                return f"a value of {column}"
        if self.words:
            for column, value in columns.items():
                if word := self.word(" ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)):
                    return f"the word {word!r} in {column}"
        return None

    def word(self, text: str) -> str | None:
        """A blocked word that a text holds; None where it holds none."""
        said = normal(text)
        return next((word for word in sorted(self.words) if holds(said, word)), None)


def holds(text: str, word: str) -> bool:
    """Whether a text holds a word whole; both as `normal` gives them."""
    if word not in text:
        return False
    before = "" if TOGETHER.match(word[0]) else r"(?<![^\W_])"
    after = "" if TOGETHER.match(word[-1]) else r"(?![^\W_])"
    return re.search(f"{before}{re.escape(word)}{after}", text) is not None


def _cell(value: Any, separator: str) -> set[str]:
    """The values of a cell as they are compared: all of it, and its tags."""
    if isinstance(value, list | tuple):
        return {normal(str(one)) for one in value}
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return {normal(text), *(normal(one) for one in text.split(separator) if separator)}


def _texts(said: Any, path: Path, key: str) -> Iterable[str]:
    if said is None:
        return []
    if not isinstance(said, list) or not all(isinstance(one, str | int | float) and str(one).strip() for one in said):
        raise InputError(f"{path}: {key}: write a list of texts, each with a character at least.")
    return [str(one) for one in said]
