"""`nightloom versions` and `rollback`, and looking where nothing is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from nightloom.promotion.ledger import Intent
from nightloom.promotion.registry import Registry
from nightloom.promotion.review import review_tag


def test_versions_and_rollback(nightloom, home: SimpleNamespace) -> None:
    code, out, _ = nightloom("versions", "shop", "--root", home.root)
    assert code == 0
    newest, oldest = [line for line in out.splitlines() if line.startswith("│")]
    assert all(word in newest for word in ("2", "challenger, champion", "20260102-020000", "dddddddd", "aaaaaaaa+dirty"))
    assert all(word in newest for word in ("NDCG@10 0.2500", " min ", "No champion [stands]."))
    assert "previous" in oldest
    code, out, _ = nightloom("rollback", "shop", "--root", home.root)
    assert (code, out.splitlines()[0]) == (0, "nightloom-shop: version 1 is the champion again.")
    assert "nightloom release shop" in out.splitlines()[1]
    assert "Promotion is held: on " in nightloom("versions", "shop", "--root", home.root)[1]
    code, _, err = nightloom("rollback", "shop", "--root", home.root)
    assert (code, err.startswith("nightloom: nightloom-shop has no previous version")) == (2, True)
    assert nightloom("release", "shop", "--root", home.root)[0] == 0
    code, _, err = nightloom("release", "shop", "--root", home.root)
    assert (code, err.startswith("nightloom: nightloom-shop is not held")) == (2, True)
    assert "held" not in nightloom("versions", "shop", "--root", home.root)[1]


def test_a_version_that_waits_for_a_second_person(nightloom, home: SimpleNamespace) -> None:
    registry = Registry(home.root)
    run = registry.tracking.client.create_run(registry.tracking.experiment("waits")).info.run_id
    registry.register("waits", home.bundle, run, review_tag(Intent(None, None)), "card", [["i1"]])
    code, out, _ = nightloom("versions", "waits", "--root", home.root)
    assert (code, out.splitlines()[-1].startswith("Version 1 waits for a second person: ")) == (0, True)
    code, out, _ = nightloom("approve", "waits", "--by", "bob", "--root", home.root)
    assert (code, out) == (0, "nightloom-waits: version 1 is the champion, approved by bob.\n")
    code, _, err = nightloom("approve", "waits", "--root", home.root)
    assert (code, err.startswith("nightloom: nothing of nightloom-waits waits for approval. See: ")) == (2, True)


@pytest.mark.parametrize("command", [("versions", "shop"), ("rollback", "shop"), ("recommend", "shop"), ("compare", "0" * 32, "shop")])
def test_looking_where_no_night_has_run_makes_nothing(nightloom, tmp_path: Path, command: tuple[str, ...]) -> None:
    code, _, err = nightloom(*command, "--root", tmp_path / "mlruns")
    assert code == 2
    assert "no night has run there" in err
    assert list(tmp_path.iterdir()) == []
