"""What a challenger is compared with where the champion is damaged, deleted or gone, on a real MLflow database with real bundles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nightloom.config import PromotionConfig
from nightloom.promotion.registered import TRAINED_TAG
from nightloom.promotion.registry import Registry
from nightloom.promotion.standing import Standing, held, stand
from tests.small_bundle import small_bundle


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("standing") / "mlruns")


def night(registry: Registry, name: str, letter: str, folder: Path) -> Standing:
    """A night whose challenger passes: stand, register, promote."""
    found = stand(registry, name, letter, folder / "champions")
    bundle = folder / "bundle"
    if not bundle.exists():
        small_bundle(bundle)
    run = registry.tracking.client.create_run(registry.tracking.experiment(name)).info.run_id
    tags = {TRAINED_TAG: letter, "nightloom.night": letter}
    registry.promote(registry.register(name, bundle, run, tags, "card", [["i1"]], intent=found.intent(best=False)))
    return found


def damage(registry: Registry, name: str, number: str, folder: Path) -> None:
    """Flip a bit of a version's weights, where they are registered and where they were fetched."""
    place = Path(registry.client.get_model_version_download_uri(f"nightloom-{name}", number).removeprefix("file://"))
    for path in [*place.rglob("model.safetensors"), *(folder / "champions").glob(f"*-v{number}-*/model.safetensors")]:
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(bytes(raw))


def test_nights_one_after_the_other(registry: Registry, tmp_path: Path) -> None:
    first, second = night(registry, "plain", "a", tmp_path), night(registry, "plain", "b", tmp_path)
    assert (first.champion, first.over, first.notes) == (None, None, ())
    assert (second.champion, second.over, second.notes) == ("1", "1", ())
    again = stand(registry, "plain", "b", tmp_path / "champions")  # killed after it was promoted, and started again
    assert (again.champion, again.notes) == ("1", ())


def test_a_damaged_champion_is_named_and_the_version_before_is_compared(registry: Registry, tmp_path: Path) -> None:
    for letter in "ab":
        night(registry, "damaged", letter, tmp_path)
    stand(registry, "damaged", "c", tmp_path / "champions")
    damage(registry, "damaged", "2", tmp_path)
    found = stand(registry, "damaged", "c", tmp_path / "champions")
    assert (found.champion, found.over) == ("1", "2")
    assert "The champion, version 2, can not be read" in found.notes[0]
    assert "compared with version 1, the previous version, instead of the champion. To have it serve again: " in found.notes[1]
    assert "rollback damaged" in found.notes[1]
    night(registry, "damaged", "c", tmp_path)
    # The damaged one is not what a rollback goes back to.
    assert registry.aliases("damaged") == {"champion": "3", "previous": "1", "challenger": "3", "anchor": "1"}
    assert registry.rollback("damaged").version == "1"


def test_a_champion_whose_files_are_gone_and_nothing_else_can_be_read(registry: Registry, tmp_path: Path) -> None:
    night(registry, "gone", "a", tmp_path)
    shutil.rmtree(registry.client.get_model_version_download_uri("nightloom-gone", "1").removeprefix("file://"))
    found = stand(registry, "gone", "b", tmp_path / "champions")
    assert (found.champion, found.over, found.places) == (None, "1", {})
    assert "The champion, version 1, can not be read" in found.notes[0]
    assert "judged as a first one" in found.notes[1]
    night(registry, "gone", "b", tmp_path)
    assert registry.aliases("gone")["champion"] == "2"


def test_a_champion_that_was_deleted_on_mlflows_page_is_missed(registry: Registry, tmp_path: Path) -> None:
    for letter in "abc":
        night(registry, "deleted", letter, tmp_path)
    registry.client.delete_model_version("nightloom-deleted", "3")
    found = stand(registry, "deleted", "d", tmp_path / "champions")
    assert (found.champion, found.over) == ("2", None)
    assert "Version 3 was champion, and is not in " in found.notes[0]
    registry.client.delete_model_version("nightloom-deleted", "2")
    found = stand(registry, "deleted", "d", tmp_path / "champions")
    assert (found.champion, found.over) == ("1", None)
    assert "version 1, the newest one that can be read" in found.notes[0]
    night(registry, "deleted", "d", tmp_path)
    assert registry.aliases("deleted") == {"champion": "4", "previous": "1", "challenger": "4", "anchor": "4"}


def test_a_registry_that_was_lost_whole_is_no_first_night(registry: Registry, tmp_path: Path) -> None:
    found = stand(registry, "lost", "a", tmp_path / "champions", last="7")
    assert found.champion is None
    assert "Version 7 was champion, and is not in sqlite:///" in found.notes[0]
    assert "as a first one" in found.notes[0]


def test_a_hold_counts_nights_and_ends_by_a_person_or_by_itself(registry: Registry, tmp_path: Path) -> None:
    for letter in "ab":
        night(registry, "held", letter, tmp_path)
    assert held(registry, "held", PromotionConfig(), "n0", "c") == ""
    registry.rollback("held")
    rules = PromotionConfig(hold_nights=2)
    said = held(registry, "held", rules, "n1", "c")
    assert "a person went back from version 2 to version 1" in said
    assert "release held` ends that, or 2 nights that it holds back (1 so far)." in said
    assert held(registry, "held", rules, "n1", "c") == said  # the same night again counts once
    assert held(registry, "held", PromotionConfig(mode="dry_run", hold_nights=2), "n2", "c") == said
    assert "(2 so far)" in held(registry, "held", rules, "n3", "c")
    assert held(registry, "held", rules, "n4", "c") == ""
    assert registry.hold("held") is None
    assert "This is version 2 again, from which a person went back" in held(registry, "held", rules, "n5", "b")
    for number in range(9):
        if number == 0:
            night(registry, "held", "c", tmp_path)
            registry.rollback("held")
        assert "Promotion is held" in held(registry, "held", PromotionConfig(hold_nights=0), f"m{number}", "d")
    registry.release("held")
    assert held(registry, "held", rules, "m9", "d") == ""
