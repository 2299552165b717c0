"""What should be looked at before it is shown."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from nightloom.cli.app import MLRUNS, Root, app, console
from nightloom.core.errors import InputError


@app.command()
def suspects(
    model: Annotated[str, typer.Argument(help="NAME (its champion) or a bundle's folder.")],
    words: Annotated[Path | None, typer.Option(help="Text file with a word or phrase a line.")] = None,
    classifier: Annotated[str | None, typer.Option(help="package.module:function, texts -> a score of 0 to 1 for each.")] = None,
    least: Annotated[float, typer.Option(min=0, max=1, help="Score of the classifier from which an item is listed.")] = 0.5,
    output: Annotated[Path, typer.Option("-o", help="CSV to write.")] = Path("suspects.csv"),
    root: Root = MLRUNS,
) -> None:
    """Write a list of items to review, by words or a classifier. Nothing is blocked: that is what the blocklist is for."""
    from nightloom.cli.recommend import bundle_of
    from nightloom.core.suspects import Suspect, by_classifier, by_words, classifier_of
    from nightloom.packaging.reader import BundleReader
    from nightloom.packaging.shown import known_columns

    if words is None and classifier is None:
        raise InputError("name --words FILE, --classifier package.module:function, or both.")
    items = known_columns(BundleReader.load(bundle_of(model, root, look_up=False)[0]))
    found = list[Suspect]()
    if words is not None:
        try:
            listed = words.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--words {words}: it can not be read ({error}). Write a word a line, in UTF-8.") from error
        found += by_words(items, listed)
    if classifier is not None:
        found += by_classifier(items, classifier_of(classifier), least)
    with output.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("item_id", "why", "text"), *((one.item_id, one.why, one.text) for one in found)])
    console().print(f"{len(found):,} of {len(items):,} items to review are in {output}. Nothing is blocked.", markup=False)
