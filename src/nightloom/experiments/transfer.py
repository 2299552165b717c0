"""From one domain to another: how well a model ranks there, by the share of the target's users that it may learn from.

All arms rank for the same test users with their whole histories. They differ in their training data: the source alone, the source and a
share of the target's users, or that share alone. Where items are shared and the source has more events, the arms in the middle learn from
both domains' histories (`nightloom.data.subsets.merged_domains`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nightloom.config import RunConfig
from nightloom.core.asked import asked
from nightloom.core.errors import InputError
from nightloom.core.metrics import parts_of_users, per_query
from nightloom.core.ranking import ranks
from nightloom.core.recommender import Recommender
from nightloom.core.sequences import Sequences
from nightloom.core.streaming import queries_of
from nightloom.data.subsets.time_cutoff import cutoff_of
from nightloom.data.subsets.user_subset import user_ids, write_user_subset
from nightloom.evaluation.statistics import paired
from nightloom.models.scorers.popularity import Popularity
from nightloom.models.scorers.text_neighbours import TextNeighbours
from nightloom.models.sequential.recommender import SequentialRecommender
from nightloom.packaging.bundle import Bundle
from nightloom.training.transfer import zero_shot

METRIC = "ndcg_at_10"
TRAINED = ("adapter", "full", "scratch")
"""Carried weights with a trained adapter; carried weights, all trained; no carried weights."""
NETWORKS = ("zero_shot", *TRAINED)
BASELINES = ("popularity", "text_neighbours")
ARMS = (*NETWORKS, *BASELINES)
ALONE = "_network"
"""Suffix of an arm that ranks without its scorers."""
PAIRS = (
    *(("zero_shot", baseline) for baseline in BASELINES),
    *((arm, "scratch") for arm in ("zero_shot", "adapter", "full")),
    *((f"{arm}{ALONE}", f"scratch{ALONE}") for arm in ("zero_shot", "adapter", "full")),
)
RESAMPLES = 2000


def source_config(source: RunConfig, target: RunConfig, *, shared: bool = False) -> RunConfig:
    """The config of the source's training: its data under the target's model, language model and schedule.

    It reads text alone: ids and attributes can not be carried over, and would learn what the text should. Where items are shared it learns
    their ids too, and has scorers.

    Raises:
        InputError: the target tunes its language model, or reads no text.
    """
    if target.training.tuning != "frozen" or not target.model.use_text:
        raise InputError("transfer: the domains meet in the vectors of item texts. Use training.tuning=frozen and model.use_text=true.")
    scorers = tuple(one for one in target.model.scorers if one != "friends") if shared else ("text_neighbours",)
    carried = {"use_text": True, "use_ids": shared, "use_attributes": False, "scorers": scorers, "reranker": False}
    same = {"model": target.model.model_copy(update=carried), "pretrained": target.pretrained, "training": target.training}
    evaluation = source.evaluation.model_copy(update={"protocols": target.evaluation.protocols})
    return source.model_copy(update=same | {"evaluation": evaluation})


def arms_config(target: RunConfig) -> RunConfig:
    """The config of every arm: the target's without a re-ranker, since a model from another domain has none."""
    return target.model_copy(update={"model": target.model.model_copy(update={"reranker": False})})


def users_to_learn_from(source: Path, target: Path, *, same_users: bool) -> NDArray[np.int64]:
    """The leak rule: users of the source that are not users of the target.

    Args:
        source: the source's folder of stage prepare.
        target: the target's.
        same_users: whether one id means one user in both; otherwise no user is left out.

    Returns:
        int64 [n], dense users of the source, ascending.

    Raises:
        InputError: all of them are users of the target.
    """
    ids = user_ids(source)
    theirs = set(user_ids(target).tolist()) if same_users else set()
    kept = np.array([user for user, name in enumerate(ids.tolist()) if name not in theirs], dtype=np.int64)
    if not len(kept):
        raise InputError(
            f"transfer: all {len(ids):,} user ids of the source are user ids of the target too, so nobody is left to learn from. "
            "Where equal ids are different users, say --unrelated-users."
        )
    return kept


def write_source(source: Path, target: Path, protocol: str, folder: Path, *, same_users: bool) -> dict[str, Any]:
    """Write the prepared folder of the source's model: without users of the target, and without the target's future.

    Every arm but `scratch` starts from this model. Under the temporal protocol it therefore learns only from events before the target's
    validation. Leave-one-out has no such time.

    Args:
        source: the source's folder of stage prepare.
        target: the target's.
        protocol: which split.
        folder: where to write.
        same_users: see `users_to_learn_from`.

    Returns:
        The figures of `write_user_subset`.

    Raises:
        InputError: no user or too few events are left, or the protocol is temporal and one of the two has no times.
    """
    users = users_to_learn_from(source, target, same_users=same_users)
    return write_user_subset(source, users, protocol, folder, before=cutoff_of(target, source, protocol))


def judge(
    protocol: str,
    prepared: Path,
    pretrained: Path,
    part: Path,
    source: Path,
    bundles: Mapping[str, Path],
    *,
    exclude_seen: bool,
    shared: bool = False,
) -> pd.DataFrame:
    """NDCG@10 of every arm on the target's test.

    Args:
        protocol: which split.
        prepared: the target's folder of stage prepare.
        pretrained: its folder of stage load_pretrained.
        part: prepared folder of the users that were learned from.
        source: the source's bundle.
        bundles: arm of `TRAINED` -> its bundle.
        exclude_seen: whether items of the history are left out.
        shared: whether items of the same text are the same items.

    Returns:
        One row a user: `user_id`, `queries` (how many the user has), a column an arm, and `<arm>_network` for those with a network,
        without scorers. They are the user's parts of means over queries (`nightloom.core.metrics.parts_of_users`).
    """
    whole, learned = (Sequences.load(place / f"sequences_{protocol}.npz") for place in (prepared, part))
    queries = queries_of(protocol, whole, "test", exclude_seen=exclude_seen)

    who, many = np.unique(queries.users, return_counts=True)
    found: dict[str, Any] = {"user_id": user_ids(prepared)[who], "queries": many}

    def evaluate(arm: str, model: Recommender) -> None:
        ranked = ranks(model, queries, exclude_seen=exclude_seen, name=arm)
        found[arm] = parts_of_users({METRIC: per_query(ranked.ranks, ranked.offsets)[METRIC]}, queries.users)[0][METRIC]

    recommenders: dict[str, SequentialRecommender] = {"zero_shot": zero_shot(source, prepared, pretrained, shared=shared)}
    recommenders |= {arm: Bundle.load(bundles[arm]).recommender for arm in TRAINED}
    for arm, recommender in recommenders.items():
        evaluate(arm, recommender)
    content = recommenders["zero_shot"].content
    evaluate("popularity", Popularity().fit(learned.train(with_validation=True), whole.n_items))
    evaluate("text_neighbours", TextNeighbours().read(content.text, content.has_text))
    for arm, recommender in recommenders.items():
        recommender.weights = {}
        evaluate(f"{arm}{ALONE}", recommender)
    return pd.DataFrame(found)


def differences(judged: pd.DataFrame, confidence: float = 0.95) -> dict[str, dict[str, Any]]:
    """Paired differences of NDCG@10 over users drawn with replacement.

    Args:
        judged: the frame of `judge`.
        confidence: of the intervals.

    Returns:
        "a/b" of `PAIRS` -> `difference`, `low`, `high`, and `relative`, the difference as a share of b (null when b is 0).
    """
    first, second = ({f"{a}/{b}": judged[(a, b)[side]].to_numpy(dtype=np.float64) for a, b in PAIRS} for side in (0, 1))
    found = paired(first, second, queries=judged["queries"].to_numpy(), confidence=confidence, resamples=RESAMPLES)
    return {name: {"difference": one.difference, "low": one.low, "high": one.high, "relative": one.relative} for name, one in found.items()}


def line_of(
    share: float, judged: pd.DataFrame, learned: Mapping[str, Any], figures: Mapping[str, Any], confidence: float
) -> dict[str, Any]:
    """One share's line of the table.

    Args:
        share: of the target's users.
        judged: the frame of `judge`.
        learned: `users` and `events` of the training data, and the number of `held_out` users; where the source joined, `together` holds
            the figures of `write_merged_domains`.
        figures: arm -> figures of its training.
        confidence: of the intervals.
    """
    return {
        "share": share,
        "learned": dict(learned),
        "users": len(judged),
        "queries": int(judged["queries"].sum()),
        METRIC: {name: float(judged[name].mean()) for name in judged if name not in ("user_id", "queries")},
        "differences": differences(judged, confidence),
        "best_epoch": {arm: one["best_epoch"] for arm, one in figures.items()},
        "epochs": {arm: one["epochs"] for arm, one in figures.items()},
        "cpu_seconds": {arm: one["cpu_seconds"] for arm, one in figures.items()},
        "weights": {arm: one["weights"] for arm, one in figures.items()},
    }


def markdown(lines: Sequence[Mapping[str, Any]], source: Mapping[str, Any], title: str, confidence: float = 0.95) -> str:
    """The shares as a table, and the paired differences below it.

    Args:
        lines: the lines of `line_of`, by share.
        source: figures of the source's training: `users`, `left_out`, `events`, and `same`, items taken for the same in both.
        title: above the table.
        confidence: of the intervals.
    """
    head = ["users learned from", "their events", *(f"{arm.replace('_', ' ')}" for arm in ARMS)]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in lines:
        values = one[METRIC]
        cells = [f"{values[arm]:.4f} ({values[arm + ALONE]:.4f})" if arm in NETWORKS else f"{values[arm]:.4f}" for arm in ARMS]
        rows.append(f"| {one['learned']['users']:,} ({one['share']:.0%}) | {one['learned']['events']:,} | {' | '.join(cells)} |")
    rows += [
        "",
        f"| users learned from | NDCG@10 of | less that of | difference | {confidence:.0%} interval | relative |",
        "|---" * 6 + "|",
    ]
    for one in lines:
        for name, by in one["differences"].items():
            a, b = (words(arm) for arm in name.split("/"))
            relative = "" if by["relative"] is None else f"{by['relative']:+.0%}"
            rows.append(
                f"| {one['share']:.0%} | {a} | {b} | {by['difference']:+.4f} | {by['low']:+.4f} to {by['high']:+.4f} | {relative} |"
            )
    said = (
        f"NDCG@10 of {asked(lines[0]['users'], lines[0]['queries'])}, the same in all rows, over the whole catalogue; in brackets the "
        f"network without its scorers. The source's {source['users']:,} users have {source['events']:,} events; "
        f"{source['left_out']:,} users of both domains were left out there."
    )
    if source.get("later"):
        said += f" {source['later']:,} more of the source's events were left out, since they are not before the target's validation."
    if source.get("same"):
        said += f" {source['same']:,} items have the same text in both catalogues and count as the same."
    if some := [one["learned"] for one in lines if one["learned"]["held_out"]]:
        many, held = (" and ".join(f"{one[name]:,}" for one in some) for name in ("users", "held_out"))
        said += (
            f" Of the {many} users {held} were held out of a search and chose the epochs and the fusion weights; then all were "
            "learned from."
        )
    if joined := {one["share"]: one["learned"]["together"] for one in lines if "together" in one["learned"]}:
        first, shares = next(iter(joined.values())), ", ".join(f"{share:.0%}" for share in joined)
        said += (
            f" At {shares} adapter and full learned from the {first['events']:,} events that {first['users']:,} of the source's users have "
            "on these, too; scratch did not."
        )
    return f"## {title}\n\n{said}\n\n" + "\n".join(rows) + "\n"


def words(arm: str) -> str:
    """An arm's name in words."""
    return arm.replace(ALONE, ", network alone").replace("_", " ")


def plot(path: Path, lines: Sequence[Mapping[str, Any]], title: str) -> None:
    """NDCG@10 of every arm by the number of users learned from, with scorers and without."""
    from nightloom.evaluation import plots

    styles = {
        "zero_shot": (plots.OTHER, "--"),
        "adapter": (plots.BETTER, "s-"),
        "full": (plots.MODEL, "o-"),
        "scratch": (plots.WORSE, "^-"),
        "popularity": (plots.CHAMPION, "v:"),
        "text_neighbours": (plots.CHAMPION, "-."),
    }
    users = [one["learned"]["users"] for one in lines]
    with plots.figure(path, title, 4.2, columns=2, sharey=True) as (fused, alone):
        for axis, end, below in ((fused, "", "with scorers"), (alone, ALONE, "network alone")):
            for arm, (colour, style) in styles.items():
                values = [one[METRIC][arm + end if arm in NETWORKS else arm] for one in lines]
                axis.plot(users, values, style, color=colour, label=words(arm), markersize=5)
            axis.set_xscale("log")
            axis.set_ylim(bottom=0)
            axis.set_xlabel(f"users of the target that were learned from, {below}")
        fused.set_ylabel("NDCG@10")
        handles, labels = fused.get_legend_handles_labels()
        fused.figure.legend(handles, labels, loc="outside upper right", frameon=False, ncols=6, fontsize=8)
