"""A real SIGKILL before each write to the registry, and after the last; then resumed, not resumed, or rolled back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from nightloom.core.errors import InputError
from nightloom.packaging.served import Served
from nightloom.promotion import registry as module
from nightloom.promotion.ledger import DONE, PROMOTE, Intent
from nightloom.promotion.registered import ANCHOR, CHAMPION, PREVIOUS, TRAINED_TAG, Registered
from nightloom.promotion.registry import HeldError, OvertakenError, Registry
from tests.recovery.killed import WRITES

FORK = multiprocessing.get_context("fork")
SERVED = cast(Served, SimpleNamespace(folder=Path(__file__).with_name("no files")))


def in_a_process(registry: Registry, work: Callable[[Registry], Any]) -> Any:
    """What a fork of this process gives, with connections of its own; None where it is killed."""
    ours, its = FORK.Pipe()

    def run() -> None:
        ours.close()
        for client in (registry.client._tracking_client, registry.client._get_registry_client()):
            client.store.engine.dispose(close=False)
        its.send(work(registry))

    process = FORK.Process(target=run)
    process.start()
    its.close()
    try:
        return ours.recv()
    except EOFError:
        return None
    finally:
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), process.exitcode


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry whose models have no files: what is logged is no matter of these tests, and takes its time."""
    registry = Registry(tmp_path_factory.mktemp("kills") / "mlruns")
    experiment = registry.tracking.experiment("all")

    def logged(client: Any, served: Served, run_id: str, tags: Any, card: str, data_card: str | None) -> Any:
        return client.create_logged_model(experiment, "model", run_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "log_model", logged)
        yield registry


def two_nights(registry: Registry, name: str) -> str:
    """A recommender with version 1 (training a, previous) and 2 (b, champion), as two nights leave it, in fewer steps."""
    client, model = registry.client, f"nightloom-{name}"
    client.create_registered_model(model)
    for letter, intent in (("a", Intent(None, None)), ("b", Intent("1", "1"))):
        client.create_model_version(model, source=f"/{letter}", run_id=letter * 32, tags={TRAINED_TAG: letter} | intent.tag())
    moves = [(None, {CHAMPION: "1", PREVIOUS: None, ANCHOR: "1"}), ("1", {CHAMPION: "2", PREVIOUS: "1", ANCHOR: "1"})]
    for over, aliases in moves:
        move = registry._write(name, PROMOTE, version=aliases[CHAMPION], over=over, intended=True, aliases=aliases)
        registry._write(name, DONE, of=move.key)
    for alias, version in moves[1][1].items():
        client.set_registered_model_alias(model, alias, version)
    return name


def night(registry: Registry, name: str, letter: str) -> str:
    """Judge a training against the champion and promote it, again where another one was quicker; gives its number."""
    tags = {TRAINED_TAG: letter}
    run = registry.tracking.client.create_run(registry.tracking.experiment("all")).info.run_id
    while True:
        registry.settle(name)
        champion = registry.champion(name)
        judged = champion.version if champion else None
        try:
            version = registry.register_served(name, SERVED, run, tags, "card", intent=Intent(judged, judged))
            registry.promote(version)
        except OvertakenError:
            continue
        return version.version


def state(registry: Registered, name: str) -> dict[str, Any]:
    """Aliases, versions by training, and whether the ledger says the same as the aliases."""
    aliases, ledger = registry.aliases(name), registry.ledger(name)
    last = ledger.last_move
    return {
        "champion": aliases[CHAMPION],
        "previous": aliases[PREVIOUS],
        "trained": {one.version: one.tags[TRAINED_TAG] for one in registry.versions(name)},
        "told": last is not None and all(aliases[alias] == version for alias, version in (last.aliases or {}).items()),
        "finished": ledger.unfinished is None,
        "held": ledger.hold is not None,
    }


def counted(registry: Registry, at: int, act: Callable[[], None]) -> Counter[str]:
    """Act before a registry's write of that number; gives the count of its writes."""
    count = Counter[str]()
    for name in WRITES:
        real = getattr(registry.client, name)

        def write(*arguments: Any, real: Any = real, **more: Any) -> Any:
            count["writes"] += 1
            if count["writes"] == at + 1:
                act()
            return real(*arguments, **more)

        setattr(registry.client, name, write)
    return count


def killed(registry: Registry, work: Callable[[Registry], Any], before: int) -> bool:
    """Work in another process that is killed before a write; gives whether there were so many."""

    def run(registry: Registry) -> bool:
        counted(registry, before, lambda: os.kill(os.getpid(), signal.SIGKILL))
        work(registry)
        return True

    return in_a_process(registry, run) is None


def holds(found: dict[str, Any], *, ended: bool) -> None:
    """What must be true of the aliases at any time, and of the ledger once somebody came after the kill."""
    assert found["champion"] in found["trained"]
    assert found["previous"] != found["champion"]
    assert found["trained"].items() >= {"1": "a", "2": "b"}.items()
    assert not ended or (found["told"] and found["finished"])


@pytest.mark.parametrize("then", ["resumed", "not resumed", "rolled back"])
def test_a_night_that_is_killed(opened: Registry, then: str) -> None:
    for before in range(100):
        name = two_nights(opened, f"night-{then[:3]}-{before}")
        if not killed(opened, partial(night, name=name, letter="c"), before):
            break
        left = state(opened, name)
        holds(left, ended=False)
        moved = left["champion"] == "3" or not left["finished"]
        if then == "rolled back":
            opened.rollback(name)
            found = state(opened, name)
            assert found["held"]
            # The killed night's version is taken back where its promotion had begun, else the champion before it.
            assert found["trained"][found["champion"]] == ("b" if moved else "a")
        else:
            night(opened, name, "c" if then == "resumed" else "d")
            found = state(opened, name)
            letters = list(found["trained"].values())
            assert found["trained"][found["champion"]] == ("c" if then == "resumed" else "d")
            assert letters.count("c") == ("c" in left["trained"].values() or then == "resumed")
            # What was registered had passed its gate: the next night finishes its promotion, and was then judged against it.
            assert found["trained"][found["previous"]] == ("c" if then == "not resumed" and "c" in letters else "b")
        holds(found, ended=True)
    assert before >= 7


@pytest.mark.parametrize("then", ["killed at its next write", "killed", "continued"])
def test_a_night_that_sleeps_while_another_one_is_promoted(opened: Registry, then: str) -> None:
    """It is paused before each of its writes to the registry, and does one more, or all, or none, when others have moved on."""
    stale = 0
    for before in range(100):
        name = two_nights(opened, f"sleep-{len(then)}-{before}")
        process = FORK.Process(target=_sleeper, args=(opened, name, before, then == "killed at its next write"))
        process.start()
        if not _asleep(process):
            break
        night(opened, name, "d")
        if then == "killed":
            process.kill()
        os.kill(process.pid or 0, signal.SIGCONT)
        process.join()
        assert process.exitcode in ((0,) if then == "continued" else (-signal.SIGKILL, 0) if "next" in then else (-signal.SIGKILL,))
        raw = opened.client.get_registered_model(f"nightloom-{name}").aliases
        stale += str(raw[CHAMPION]) != opened.aliases(name)[CHAMPION]
        moves = opened.ledger(name).moves
        assert all(later.over == one.version for one, later in pairwise(moves))
        assert len({one.version for one in moves}) == len(moves), "none is promoted twice, over one that it was not judged against"
        last = moves[-1].aliases or {}
        assert {alias: opened.aliases(name)[alias] for alias in last} == last, "a reader is told what is meant"
        opened.settle(name)
        found, raw = state(opened, name), opened.client.get_registered_model(f"nightloom-{name}").aliases
        holds(found, ended=True)
        last = opened.ledger(name).moves[-1].aliases or {}
        assert {alias: str(version) for alias, version in raw.items() if alias in last} == {one: last[one] for one in last if last[one]}
        assert not opened.ledger(name).begun
        # A person may still move an alias in MLflow's page; that counts.
        opened.client.set_registered_model_alias(f"nightloom-{name}", CHAMPION, "1")
        opened.settle(name)
        assert opened.aliases(name)[CHAMPION] == "1"
    assert before >= 8
    assert (stale > 0) == (then == "killed at its next write")


def _sleeper(registry: Registry, name: str, before: int, dies: bool) -> None:
    """A night in a process that stops itself before a write, and is killed before the one after that."""
    for client in (registry.client._tracking_client, registry.client._get_registry_client()):
        client.store.engine.dispose(close=False)
    counted(registry, before, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    counted(registry, before + 1, lambda: os.kill(os.getpid(), signal.SIGKILL) if dies else None)
    night(registry, name, "c")


def _asleep(process: Any) -> bool:
    """Wait until a process has stopped itself; gives False where it ended before."""
    while process.is_alive():
        if psutil.Process(process.pid).status() == psutil.STATUS_STOPPED:
            return True
        time.sleep(0.002)
    return False


@pytest.mark.parametrize("then", ["rolled back again", "promoted"])
def test_a_rollback_that_is_killed(opened: Registry, then: str) -> None:
    for before in range(100):
        name = two_nights(opened, f"back-{then[:3]}-{before}")
        if not killed(opened, partial(Registry.rollback, name=name), before):
            break
        left = state(opened, name)
        holds(left, ended=False)
        if then == "promoted":
            if left["held"]:
                with pytest.raises(HeldError):
                    night(opened, name, "c")
                assert opened.aliases(name)[CHAMPION] == "1"
                opened.release(name)
            night(opened, name, "c")
            found = state(opened, name)
            assert found["trained"][found["champion"]] == "c"
        else:
            opened.rollback(name)
            found = state(opened, name)
            assert (found["champion"], found["previous"], found["held"]) == ("1", None, True)
        holds(found, ended=True)
    assert before >= 4


def test_two_nights_that_were_judged_against_the_same_champion(opened: Registry) -> None:
    """Both are registered before either is promoted; the second is judged again, against the first."""
    name = two_nights(opened, "both")
    made = [opened.register_served(name, SERVED, letter * 32, {TRAINED_TAG: letter}, "card", intent=Intent("2", "2")) for letter in "cd"]
    with pytest.raises(OvertakenError, match="version 4 was judged against version 2, and version 3 is champion now"):
        opened.promote(made[1])
    opened.promote(made[0])
    assert (state(opened, name)["champion"], state(opened, name)["previous"]) == ("3", "2")
    night(opened, name, "d")
    found = state(opened, name)
    assert (found["champion"], found["previous"], found["told"]) == ("5", "3", True)
    assert found["trained"]["5"] == "d"


def test_nights_at_once_are_promoted_one_over_the_other(opened: Registry) -> None:
    name = two_nights(opened, "at-once")
    processes = [FORK.Process(target=in_a_process, args=(opened, partial(night, name=name, letter=letter))) for letter in "cdef"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found, moves = state(opened, name), opened.ledger(name).moves
    holds(found, ended=True)
    assert {found["trained"][one.version or ""] for one in moves[2:]} == set("cdef")
    assert all(later.over == one.version for one, later in pairwise(moves))
    assert (found["champion"], found["previous"]) == (moves[-1].version, moves[-2].version)


def test_a_rollback_in_the_moment_of_a_promotion_counts(opened: Registry) -> None:
    """A person goes back before any of a night's writes, after it has seen that nothing is held."""
    for at in range(100):
        name = two_nights(opened, f"moment-{at}")

        def work(registry: Registry, at: int = at, name: str = name) -> bool:
            count = counted(registry, at, lambda: registry.rollback(name))
            with suppress(HeldError):
                night(registry, name, "c")
            return count["writes"] > at

        if not in_a_process(opened, work):
            break
        found = state(opened, name)
        holds(found, ended=True)
        assert found["held"]
        assert found["champion"] in ("1", "2")
    assert at >= 6


def test_what_mlflows_page_deleted_is_known(opened: Registry) -> None:
    name = two_nights(opened, "deleted")
    opened.client.delete_model_version(f"nightloom-{name}", "2")
    assert opened.lost_champion(name) == "2"
    assert [one.version for one in opened.candidates(name, "c")] == ["1"]
    assert opened.rollback(name).version == "1"
    assert state(opened, name)["previous"] is None
    with pytest.raises(InputError, match="no previous version to go back to; nothing was changed"):
        opened.rollback(name)
