"""Reports of made-up nights, one for each way a night can end, built with the real `build_report`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nightloom.config import config_from_dict
from nightloom.report.build import build_report
from nightloom.runs.stages import Manifest, Night

STAGES = {"collect": 1.2, "validate": 4.1, "prepare": 0.9, "load_pretrained": 6.4, "fine_tune": 143.0, "evaluate": 11.7, "explain": 9.8}
FAMILIES = {"nightloom": 0.0925, "champion": 0.0901, "graph": 0.0871, "als": 0.0712, "item_knn": 0.0655, "popularity": 0.0402}


def night(root: Path = Path("/nowhere/mlruns"), mode: str = "enabled", **sections: Any) -> Night:
    """A night of a made-up recommender."""
    content = {"name": "films", "data": {"events": "ratings.csv"}, "promotion": {"mode": mode}} | sections
    return Night(config_from_dict(content), "20261124-020000", root)


def manifests(root: Path = Path("/nowhere/mlruns"), reused: tuple[str, ...] = ("collect", "load_pretrained")) -> list[Manifest]:
    """A manifest for each stage."""
    return [
        Manifest(
            stage,
            key=f"key{number}",
            folder=str(root / stage),
            seconds=seconds,
            peak_mb=400.0 + 90 * number,
            status="reused" if stage in reused else "done",
        )
        for number, (stage, seconds) in enumerate(STAGES.items())
    ]


def measures(champion: bool = True) -> dict[str, Any]:
    """Metrics, intervals, slices and curves as stage evaluate and stage fine_tune give them."""
    families = {name: value for name, value in FAMILIES.items() if champion or name != "champion"}
    metrics = {
        name: {
            "streaming": {"hr_at_10": 2.1 * value, "ndcg_at_10": value, "mrr_at_10": 0.8 * value, "recall_at_10": 1.6 * value,
                         "coverage_at_10": 0.2 + value, "novelty_at_10": 3.0, "popularity_bias_at_10": None}
        }
        for name, value in families.items()
    }  # fmt: skip
    intervals = {
        name: {"streaming": {metric: (0.92 * value, 1.08 * value) for metric, value in found["streaming"].items() if value is not None}}
        for name, found in metrics.items()
    }
    slices = {
        name: {
            "streaming": {
                "new users": {"users": 61, "events": 140, "ndcg_at_10": 0.9 * value},
                "tail items": {"users": 204, "events": 1204, "ndcg_at_10": 0.3 * value},
            }
        }
        for name, value in families.items()
    }
    epochs = [
        {"epoch": n, "loss": 4 + 3 * math.exp(-n / 6), "validation_ndcg_at_10": 0.1 - 0.07 * math.exp(-n / 5) - 0.0004 * max(0, n - 17),
         "learning_rate": 0.001, "seconds": 4.0}
        for n in range(1, 25)
    ]  # fmt: skip
    training = {
        "streaming": {
            "weights": {"cooccurrence": 0.2, "graph": 0.1},
            "validation_alone": {"network": 0.09, "graph": 0.08, "cooccurrence": 0.07, "popularity": 0.03},
            "validation_ndcg_at_10": 0.1, "warm_start": None, "cold_because": "training.warm_start is false",
            "reranker": {"queries": 300, "gain": 0.012, "error": 0.004, "kept": True},
            "probabilities": {"auc": 0.81, "log_loss": 0.11, "ece": 0.004, "rows": 30_100.0, "positive": 0.031},
            "label_probabilities": None,
            "membership": {
                "events": {"network": 0.561, "search against refit": 0.665},
                "users": {"network": 0.58, "search against refit": 0.918},
                "shipped_events": 0.561,
                "shipped_users": 0.58,
                "members": 2000,
                "others": 2000,
            },
        }
    }  # fmt: skip
    asked = {
        "streaming": {"test_users": 512, "test_queries": 3071, "test_rows": 3071, "without_history": {"queries": 96, "users": 88},
                      "sampled_from": 4410}
    }  # fmt: skip
    live = {name: 1.1 * value for name, value in metrics["nightloom"]["streaming"].items() if name.split("_")[0] in ("hr", "ndcg", "mrr")}
    return {
        "metrics": metrics, "intervals": intervals, "slices": slices, "curves": {"streaming": epochs}, "training": training,
        "asked": asked, "live": {"streaming": {"metrics": live, "intervals": {}}},
        "trade_off": {"streaming": trade_off()}, "newcomers": {"streaming": newcomers()},
    }  # fmt: skip


def trade_off() -> dict[str, Any]:
    """As `nightloom.evaluation.trade_off` gives it."""
    rows = [
        {"strength": at / 10, "ndcg_at_10": 0.1 - 0.0004 * at * at, "relative": -0.004 * at * at, "low": -0.005 * at * at - 0.01 * (at > 0),
         "high": -0.003 * at * at, "arp": 300.0 - 20 * at, "aplt": 0.05 + 0.03 * at, "tail_items": 200.0 + 30 * at, "gini": 0.8 - 0.02 * at}
        for at in range(11)
    ]  # fmt: skip
    return {"queries": 3000, "chosen": 0.25, "rows": rows}


def newcomers() -> dict[str, Any]:
    """As `nightloom.evaluation.newcomers` gives it."""
    off, on = ({"ndcg_at_10": value, "items": items, "shared": 1.0} for value, items in ((0.21, 10), (0.208, 74)))
    said = {"queries": 96, "users": 88, "temperature": 0.1, "off": off, "on": on}
    return said | {"difference": -0.002, "low": -0.011, "high": 0.006}


def decision(kind: str = "promote", champion: bool = True) -> dict[str, Any]:
    """What `dataclasses.asdict` makes of the gate's Decision."""
    content: dict[str, Any] = {
        "decision": kind,
        "metric": "ndcg_at_10",
        "mode": "enabled",
        "users": 512,
        "queries": 3071,
        "challenger": 0.0925,
        "guards": (),
    }
    if champion:
        return content | {
            "reasons": ("ndcg_at_10 0.0925 against 0.0901 of the champion on 512 users.", "The challenger is not inferior."),
            "champion": 0.0901, "difference": 0.0024, "relative": 0.0266, "interval": (-0.0009, 0.0058), "threshold": -0.0018,
        }  # fmt: skip
    reasons = (
        "No champion stands. The challenger's ndcg_at_10 is 0.0925 on 512 held-out users.",
        "Every baseline is matched within the margin.",
    )
    return content | {"reasons": reasons, "champion": None, "difference": None, "relative": None, "interval": None, "threshold": None}


REASONS = {
    "protocol": "streaming",
    "sample": [
        {
            "user_id": "42", "item_id": "7", "title": "Dark City",
            "sentence": "Dark City is recommended because of The Wedding Singer and Sphere in the history.",
            "events": [
                {"label": "The Wedding Singer", "value": 0.68, "share": 0.36}, {"label": "Boomerang <b>", "value": -0.09, "share": -0.05},
            ],
            "fields": [{"label": "its text", "value": 0.94, "share": 0.53}, {"label": "year (1998)", "value": -0.37, "share": -0.21}],
        }
    ],
    "fidelity": [
        {"removed": 1, "users": 8, "drop": 0.68, "drop_random": 0.04, "rank": 11.6, "rank_random": 1.7, "still_first": 0.375,
         "still_first_random": 0.93, "pos_at_5": 0.5, "cdcg": 0.51, "deletion": 0.62, "insertion": 1.3},
    ],
    "service_fidelity": {
        "challenger": {"users": 100, "pos_at_5": 0.602, "cdcg": 0.525, "del": 0.698, "ins": 1.04},
        "champion": {"users": 99, "pos_at_5": 0.611, "cdcg": 0.531, "del": 0.701, "ins": 1.02},
    },
}  # fmt: skip


def check(table: str, column: str, rule: str, scope: str, passed: bool, **more: Any) -> dict[str, Any]:
    """An entry of checks.json."""
    found = {"table": table, "column": column, "rule": rule, "severity": "critical", "passed": passed, "found": "", "scope": scope}
    return found | {"rows": 100_000, "bad": 0, "share": 0.0, "examples": []} | more


CHECKS = [
    check("items", "item_id", "must hold string", "column", True, found="holds string", rows=1_682),
    check(
        "items", "title", "a title for 95% of films", "table", False, severity="warning", found="90 of 1,682 rows against it", rows=1_682
    ),
    check("events", "user_id", "missing", "row", True),
    check("events", "value", "not between 1 and 5", "row", False, bad=13, share=0.00013, examples=["99", "<i>-1</i>"]),
    check("events", "", "at least 1,000 good events", "table", True, found="99987", rows=99_987),
]


def sample_lists(champion: bool = True) -> dict[str, Any]:
    """What stage evaluate writes as sample_lists.json."""

    def listed(ranks: list[tuple[str, int | None]]) -> list[dict[str, Any]]:
        return [
            {"item_id": title[:2], "title": title, "rank": rank, "other_rank": other if champion else None}
            for rank, (title, other) in enumerate(ranks, start=1)
        ]

    mine = listed([("Dark City", 3), ("Heat & Dust", 2), ("A <b>bold</b> title", None), ("Gattaca", 1)])
    its = listed([("Gattaca", 4), ("Heat & Dust", 2), ("Dark City", 1), ("Sphere", None)])
    users = [{"user_id": user, "challenger": mine, "champion": its if champion else []} for user in ("42", "7")]
    figures = {"shared_at_10": 7.25, "same_first": 0.5} if champion else {"shared_at_10": None, "same_first": None}
    return {"protocol": "streaming", "users": users, "known_ranks": 20} | figures


MOVERS: dict[str, Any] = {
    "users": 200,
    "rises": [{"item_id": "7", "title": "Dark City", "rank": 12.2, "champion_rank": 40.1, "parts": {"network": 0.41, "graph": -0.1}}],
    "falls": [{"item_id": "8", "title": "Sphere", "rank": 50.4, "champion_rank": 20.7, "parts": {"popularity": -0.3, "network": -0.2}}],
}
"""What rises and falls."""
MAP: dict[str, Any] = {
    "column": "genres",
    "categories": ["Drama", "Comedy", "other"],
    "explained": [0.31, 0.12],
    "points": [
        {"x": 0.1 + 0.2 * (place % 5), "y": 0.1 + 0.2 * (place // 5), "category": place % 3}
        | ({"title": f"Film {place}"} if place < 9 else {})
        for place in range(25)
    ],
}
"""A map of the item space."""


SERVES: list[dict[str, Any]] = [
    {
        "part": "sequence model and item vectors",
        "precision": "int8",
        "bytes": 258_664,
        "single_bytes": 840_096,
        "lost": 0.001311,
        "near": 0.994027,
    },
    {"part": "text encoder", "precision": "half", "bytes": 46_100_000, "single_bytes": None, "lost": None, "near": 0.9985},
]


def report(ending: str = "promoted", root: Path = Path("/nowhere/mlruns")) -> dict[str, Any]:
    """A whole report; `ending` is promoted, first, rejected, waits, dry_run, disabled or refused."""
    common: dict[str, Any] = {
        "data_hash": "8f2c" * 16,
        "git": {"commit": "0123abcd"},
        "period": ("1997-09-20T03:05:10+00:00", "1998-04-22T23:10:38+00:00"),
        "counts": {"events": 100_000, "items": 1_682, "users": 943},
        "quarantined": {"events": 13, "items": 0},
        "quarantine_reasons": {"events": {"value: not between 1 and 5": 13}},
        "links": {
            "mlflow_run_id": "f00d",
            "data_docs": "/nowhere/data_docs/index.html",
            "mlflow_url": "http://127.0.0.1:5000/#/experiments/1/runs/f00d",
            "mlflow_runs": "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning",
        },
        "licence": "MovieLens: research, non-commercial use (Harper and Konstan 2015).",
    }
    here = night(root, {"dry_run": "dry_run", "disabled": "disabled", "waits": "review"}.get(ending, "enabled"))
    if ending == "refused":
        message = "events.value: 5,000 of 100,000 rows (5.0 %) are not between 1 and 5, for example 'row 7: 99'. Correct the rows."
        stop = check("events", "", "at least 1,000 good events", "table", False, found="12", rows=12)
        return build_report(here, manifests(root)[:1], **common, refused=("validate", message), checks=[*CHECKS[:-1], stop])
    first = ending in ("first", "disabled")
    versions = {"champion": 3, "challenger": 3, "previous": 2}
    if ending in ("rejected", "waits", "dry_run"):
        versions = {"champion": 2, "challenger": 3, "previous": 1}
    elif first:
        versions = {"champion": 1, "challenger": 1, "previous": None} if ending == "first" else {}
    return build_report(
        here,
        manifests(root),
        **common,
        **measures(champion=not first),
        decision=decision("reject" if ending == "rejected" else "promote", champion=not first),
        versions=versions,
        serves=SERVES if ending in ("promoted", "first") else (),
        explanations={**REASONS, "map": MAP},
        reason_votes={"events": {"helpful": 12, "not_helpful": 3}, "newcomer": {"helpful": 0, "not_helpful": 1}},
        checks=CHECKS,
        sample_lists=sample_lists(champion=not first),
        movers={} if first else MOVERS,
    )


HOSTILE = "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'> | ![a](x) [b](javascript:hit) **c** \"'><svg onload=hit>"
"""What a title, an event name or a column may hold."""


def hostile_report(ending: str = "promoted") -> dict[str, Any]:
    """A report whose data say `HOSTILE` wherever they say anything."""
    content = report(ending)
    content["gate"]["reasons"] = [HOSTILE]
    content["gate"]["guards"] = [HOSTILE]
    if content["refused"]:
        content["refused"]["message"] = HOSTILE
    for families in content["slices"].values():
        for found in families.values():
            found[HOSTILE] = {"users": 300, "events": 400, "ndcg_at_10": 0.2}
    for one in content["checks"]:
        one |= {"column": HOSTILE, "rule": HOSTILE, "found": HOSTILE, "examples": [HOSTILE]}
    for user in content["sample_lists"].get("users", []):
        user["user_id"] = HOSTILE
        for item in (*user["challenger"], *user["champion"]):
            item |= {"title": HOSTILE, "item_id": HOSTILE}
    for one in content["explanations"].get("sample", []):
        one |= {"user_id": HOSTILE, "item_id": HOSTILE, "title": HOSTILE, "sentence": HOSTILE}
        for part in (*one["events"], *one["fields"]):
            part["label"] = HOSTILE
    for one in (*content["movers"].get("rises", []), *content["movers"].get("falls", [])):
        one |= {"title": HOSTILE, "item_id": HOSTILE}
    if content["explanations"]:
        places = [{**point, "title": HOSTILE} for point in MAP["points"]]
        content["explanations"]["map"] = {**MAP, "column": HOSTILE, "categories": [HOSTILE, HOSTILE, "other"], "points": places}
    content["quarantine_reasons"] = {"events": {HOSTILE: 13}}
    content["images"] = {"items": 9, "with_image": 3, "unreadable": 1, "examples": [HOSTILE]}
    content["licence"] = HOSTILE
    content["config"] |= {"prepare": {"positive_events": [HOSTILE]}}
    content["links"][HOSTILE] = f"http://host/{HOSTILE}"
    return content | {"notes": [HOSTILE], "removed": {HOSTILE: 3}}
