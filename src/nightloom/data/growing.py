"""Events of a large source that grows from night to night: what was made of its rows is kept, and only what is new is read.

A source is as it was up to a place where its files before it are, by their content. What is kept of that place holds good for the same
code, reading config and list of forgotten people. Else, or where it is damaged, everything is read, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path

from nightloom.config import DataConfig, hash_json
from nightloom.core.files import EVENTS, partial_folder
from nightloom.data.sources.files import InPieces, Piece
from nightloom.data.sources.places import grows_from, said_of, stamps_of
from nightloom.data.sources.raw import RawTable
from nightloom.data.tables import coded as of_text
from nightloom.data.tables.kept import drop, keeping, kept_home, take
from nightloom.data.tables.streamed import Begun, Streamed, stream
from nightloom.data.tables.with_store import LaidOver
from nightloom.data.tables.without_people import People
from nightloom.runs.code import code_of
from nightloom.runs.forgotten import Forgotten

READ = {"columns", "features", "tags_separator", "encoding", "separator", "header", "time_unit"}
"""What of `DataConfig` says how events are read."""


class Growing:
    """Events of a large source.

    Args:
        root: the mlruns folder.
        name: of the recommender.
        data: how the source is read.
        listed: people who asked to be forgotten.
        laid: lays the events of the service's store over the source's; None without a store.
        scratch: where folders live that end with the stage.

    Attributes:
        label: where the source is, for people.
    """

    def __init__(self, root: Path, name: str, data: DataConfig, listed: Forgotten, laid: LaidOver | None, scratch: ExitStack) -> None:
        self.label = ""
        self._home, self._snapshots, self._scratch = kept_home(root, name) / "collect", root / "snapshots" / name, scratch
        said = data.model_dump(mode="json", include=READ)
        people = [sorted(act.hash for act in listed.acts), *(laid.said if laid else ())]
        # Under pseudonyms nothing is kept: which ids there are is known by the ids themselves.
        self._key = None if data.pseudonyms else hash_json([said, people, of_text.ROW_GROUP, code_of([stream])])
        self._begun: Begun | None = None
        self._laid = laid

    def begin(self, source: InPieces) -> RawTable | None:
        """Look where reading begins. A source of one piece is read, and given.

        Raises:
            InputError: see `InPieces`.
            OSError: a file is gone.
        """
        self._source, self.label, self._stamps = source, source.label, stamps_of(source.parts)
        self._folder = self._scratch.enter_context(partial_folder(self._snapshots))
        self._begun = self._kept()
        if self._begun:
            self._pieces: Iterator[Piece] = source.pieces(self._begun.place)
            return None
        pieces = source.pieces()
        several = list(islice(pieces, 2))
        self._pieces = chain(several, pieces)
        return several[0].table if len(several) == 1 else None

    def stream(self, people: People, progress: Callable[[str], None]) -> Streamed | None:
        """The events, of which only those that are new are read; None where they must be read whole."""
        if self._begun:
            progress(f"{self._begun.rows:,} events are as they were and not read again")
        pieces, self._pieces = self._pieces, iter(())  # it holds the rows that it has read
        parts = self._folder / "kept"
        return stream(
            pieces, self._source.data, self._folder / EVENTS, people, grows_from(self._source.parts), self._begun, parts, self._laid
        )

    def keep(self, found: Streamed, parts: Path) -> None:
        """Keep what was made of rows that will be there tomorrow; `parts` are the snapshot's."""
        if self._key is None or found.begun is None or not parts.is_dir():
            if not self._begun:
                drop(self._home)
            return
        try:
            before, stamps = said_of(self._source.parts, found.begun.place), stamps_of(self._source.parts)
        except OSError:
            return  # a file that was read is gone by now
        if stamps != self._stamps:
            return  # one was written to while it was read
        said = {"before": before, **found.begun.said}
        with keeping(self._home, self._key, said) as folder:
            found.begun.write(folder, parts)

    def _kept(self) -> Begun | None:
        """What was kept, where the source is up to there as it was."""
        into = self._folder / "kept"
        into.mkdir()
        said = take(self._home, self._key, into) if self._key else None
        begun = Begun.read(into, said) if said else None
        if begun is None or said is None or said_of(self._source.parts, begun.place) != said["before"]:
            return None
        return begun
