"""With `data.pseudonyms` no id reaches the disk, look-ups find people all the same, and a wrong key is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from nightloom.config import PrepareConfig, config_from_dict
from nightloom.core.errors import InputError
from nightloom.core.pseudonyms import Pseudonyms, pseudonyms_of
from nightloom.data.collect import collect
from nightloom.data.preparation.stored import look_up
from nightloom.data.tables.snapshot import Snapshot, read_snapshot
from nightloom.privacy.forget import forget
from tests.unit.privacy.test_forget import holders

KEY = "a key of enough letters"
PEOPLE = ("person-ann", "person-bob", "person-zeta")
RULES = PrepareConfig().model_dump(mode="json")
META = {"event_types": ["rating"], "default_event_type": "rating", "prepare": RULES, "rare_items": [], "has_time": True}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", KEY)
    rows = [(user, f"i{item}", 1_600_000_000 + 1000 * item) for user in PEOPLE for item in range(3)]
    table = pd.DataFrame(rows, columns=["who", "item_id", "timestamp"]).astype({"timestamp": object})
    table.loc[len(table)] = [PEOPLE[2], "i1", "no time"]
    table.to_csv(tmp_path / "events.csv", index=False)
    with (tmp_path / "events.csv").open("a") as file:
        file.write(f"{PEOPLE[1]},i1,1600000000,one cell too many\n")
    pd.DataFrame({"user_id": PEOPLE, "sex": ["F", "M", "F"]}).to_csv(tmp_path / "users.csv", index=False)
    pd.DataFrame({"user_id": [PEOPLE[0]], "other_id": [PEOPLE[1]]}).to_csv(tmp_path / "links.csv", index=False)
    return tmp_path


def taken(home: Path, *, pseudonyms: bool = True) -> Snapshot:
    data = {table: str(home / f"{table}.csv") for table in ("events", "users", "links")}
    data |= {"columns": {"events": {"user_id": "who"}}, "pseudonyms": pseudonyms}
    return collect("shop", config_from_dict({"name": "shop", "data": data}).data, home / "mlruns")


def test_no_id_reaches_the_disk(home: Path) -> None:
    snapshot = taken(home)
    for user in PEOPLE:
        assert holders(home / "mlruns", user) == []
    plain = read_snapshot(taken(home.parent / home.name, pseudonyms=False).path)
    found, of = read_snapshot(snapshot.path), Pseudonyms(KEY.encode())
    assert found.events["user_id"].tolist() == [of(user) for user in plain.events["user_id"]]
    assert found.events.drop(columns="user_id").equals(plain.events.drop(columns="user_id"))
    assert found.users is not None
    assert found.links is not None
    assert found.users["user_id"].tolist() == [of(user) for user in PEOPLE]
    assert found.links.to_numpy().tolist() == [[of(PEOPLE[0]), of(PEOPLE[1])]]
    raws = found.rejected["events"]["raw"].tolist()
    assert json.loads(next(raw for raw in raws if raw.startswith("{")))["who"] == of(PEOPLE[2])
    assert snapshot.source["pseudonyms"] == of.fingerprint
    assert KEY not in (snapshot.path / "snapshot.json").read_text()


def test_people_are_found_by_their_ids_with_the_key_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = taken(home).path / "events.parquet"
    assert look_up(place, [PEOPLE[0], "nobody"], META)["item_id"].tolist() == ["i0", "i1", "i2"]
    assert set(look_up(place, PEOPLE, META)["user_id"]) == set(PEOPLE)
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", "another key of letters")
    for ask in (lambda: look_up(place, PEOPLE, META), lambda: pseudonyms_of(place.parent), lambda: taken(home)):
        with pytest.raises(InputError, match=r"pseudonyms.*: made by the key [0-9a-f]{16}, and the key here is"):
            ask()
    monkeypatch.delenv("NIGHTLOOM_PRIVACY_KEY")
    with pytest.raises(InputError, match="Set NIGHTLOOM_PRIVACY_KEY"):
        look_up(place, PEOPLE, META)
    with pytest.raises(InputError, match=r"data\.pseudonyms: people are named by pseudonyms there"):
        taken(home)
    monkeypatch.setenv("NIGHTLOOM_PRIVACY_KEY", "short")
    with pytest.raises(InputError, match="5 characters, at least 16 are needed"):
        taken(home)


def test_who_is_named_by_a_pseudonym_is_forgotten_by_the_id(home: Path) -> None:
    taken(home)
    forget("shop", PEOPLE[2], home / "mlruns")
    pseudonym = Pseudonyms(KEY.encode())(PEOPLE[2])
    assert holders(home / "mlruns", pseudonym) == []
    again = read_snapshot(taken(home).path)
    assert pseudonym not in set(again.events["user_id"])
    assert len(again.events) == 6
