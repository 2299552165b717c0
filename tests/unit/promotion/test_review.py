"""The rule of two people: what passed the gate waits, and a person promotes it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nightloom.core.errors import InputError
from nightloom.promotion.ledger import Intent
from nightloom.promotion.registered import TRAINED_TAG, Version
from nightloom.promotion.registry import HeldError, Registry
from nightloom.promotion.review import STARTED_BY, Answer, approve, decline, review_tag, waiting
from tests.small_bundle import small_bundle


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("review")
    return SimpleNamespace(registry=Registry(folder / "mlruns"), bundle=small_bundle(folder / "bundle"))


def registered(
    home: SimpleNamespace, name: str, number: int, over: str | None, *, best: bool = False, review: bool = True, started_by: str = ""
) -> Version:
    """What a night registers that was judged against a version."""
    tracking, intent = home.registry.tracking, Intent(over, over, best)
    run = tracking.client.create_run(tracking.experiment(name)).info.run_id
    tags = {TRAINED_TAG: f"{number:016d} streaming"} | (review_tag(intent) if review else {})
    tags |= {STARTED_BY: started_by} if started_by else {}
    return home.registry.register(name, home.bundle, run, tags, "card", [["i1"]], intent=None if review else intent)


def aliases(home: SimpleNamespace, name: str) -> list[str | None]:
    found = home.registry.aliases(name)
    return [found[alias] for alias in ("champion", "previous", "anchor")]


def test_it_waits_for_a_person_and_is_promoted_as_it_was_judged(home: SimpleNamespace) -> None:
    registered(home, "films", 1, None)
    assert aliases(home, "films") == [None, None, None]
    assert approve(home.registry, "films", "ann").version == "1"
    registered(home, "films", 2, "1", best=True)
    home.registry.settle("films")  # nothing is promoted behind a person's back
    registered(home, "films", 2, "1", best=True)  # the night was killed and started again
    assert aliases(home, "films") == ["1", None, "1"]
    assert approve(home.registry, "films", "ann").version == "2"
    assert aliases(home, "films") == ["2", "1", "2"]
    with pytest.raises(InputError, match="nothing of nightloom-films waits for approval"):
        approve(home.registry, "films", "ann")


def test_the_newest_alone_waits(home: SimpleNamespace) -> None:
    for number in (1, 2):
        registered(home, "newest", number, None)
    found = waiting(home.registry.versions("newest"), None)
    assert found is not None
    assert found.version == "2"
    assert approve(home.registry, "newest", "ann").version == "2"


def test_no_other_night_promotes_it(home: SimpleNamespace) -> None:
    registered(home, "other", 1, None)
    approve(home.registry, "other", "ann")
    registered(home, "other", 2, "1")
    home.registry.promote(registered(home, "other", 3, "1", review=False))
    assert aliases(home, "other")[0] == "3"
    with pytest.raises(InputError, match="waits for approval"):
        approve(home.registry, "other", "ann")


def test_over_another_champion_it_is_refused(home: SimpleNamespace) -> None:
    registered(home, "over", 1, None)
    approve(home.registry, "over", "ann")
    home.registry.promote(registered(home, "over", 2, "1", review=False))
    registered(home, "over", 3, "1")
    with pytest.raises(InputError, match="was judged against version 1, and version 2 is champion now"):
        approve(home.registry, "over", "ann")
    assert aliases(home, "over")[0] == "2"


def test_a_hold_holds(home: SimpleNamespace) -> None:
    for number, over in ((1, None), (2, "1")):
        registered(home, "hold", number, over)
        approve(home.registry, "hold", "ann")
    home.registry.rollback("hold")
    registered(home, "hold", 3, "1")
    with pytest.raises(HeldError):
        approve(home.registry, "hold", "ann")


def test_who_started_the_night_does_not_approve_it(home: SimpleNamespace) -> None:
    waits = registered(home, "two", 1, None, started_by="Ann")
    for by, told in (("ann ", "Ann started the night of version 1, so another person has to approve it"), (" ", "say who approves it")):
        with pytest.raises(InputError, match=told):
            approve(home.registry, "two", by)
    with pytest.raises(InputError, match="nothing of nightloom-two waits for approval"):
        approve(home.registry, "two", "bob", "7")
    assert (aliases(home, "two")[0], Answer.of(home.registry, "two")) == (None, None)
    approve(home.registry, "two", "bob", waits.version)
    assert Answer.of(home.registry, "two") == Answer("bob", promoted=True)


def test_what_was_declined_waits_no_more(home: SimpleNamespace) -> None:
    approve(home.registry, registered(home, "no", 1, None).name, "ann")
    decline(home.registry, registered(home, "no", 2, "1"), "bob")
    assert Answer.of(home.registry, "no") == Answer("bob", promoted=False)
    with pytest.raises(InputError, match="nothing of nightloom-no waits for approval"):
        approve(home.registry, "no", "ann")
    assert aliases(home, "no")[0] == "1"
