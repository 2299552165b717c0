"""The terms of the report, each explained in a sentence or two."""

from __future__ import annotations

GLOSSARY: tuple[tuple[str, str, str], ...] = (
    ("challenger", "Challenger", "The model that was trained tonight."),
    ("champion", "Champion", "The model version that serves now. Tonight's model takes its place only if it passes the gate."),
    ("baseline", "Baseline", "A simple recommender, such as popularity, trained and ranked on the same data to compare with."),
    (
        "gate",
        "Gate",
        "The rule that decides on promotion. The whole interval of the difference must lie above minus the margin, and no large slice may "
        "get much worse. Losses must not add up against the anchor. Without a champion, the challenger must match every baseline.",
    ),
    ("anchor", "Anchor", "The best model of earlier nights. Comparing with it keeps many small losses from adding up."),
    ("margin", "Margin", "The largest loss against the champion that the gate accepts."),
    ("promotion", "Promotion", "The challenger becomes the champion. The former champion stays available under the alias previous."),
    (
        "interval",
        "Interval",
        "The range that holds the true mean with the stated confidence. That of a difference comes from a paired bootstrap: users are "
        "drawn again and again, and both models are compared on the same ones.",
    ),
    (
        "held-out",
        "Held-out items",
        "Items that a user interacted with later and that the models have not seen. Good models rank them high.",
    ),
    (
        "protocol",
        "Protocol",
        "How the held-out items are chosen and when the models are asked. Streaming queries: before each event after one point in time, "
        "with all that its user did just before it, as a service is asked. Temporal split: once, at that point, for everything after it, "
        "as a newsletter. Leave-one-out split: before the last positive event of each user, as in many papers.",
    ),
    (
        "query",
        "Query",
        "What one list answers: a user at a time, with the history until then. Under streaming queries a user has one for each event. "
        "Means are over queries; intervals draw users, with all their queries.",
    ),
    (
        "live",
        "Scorers kept up to date",
        "The other figures know of other users what was known when the test began. This one lets scorers and item counters go on, as a "
        "service does; the network stays.",
    ),
    (
        "rank",
        "Rank",
        "The place of an item in a user's list, 1 is best. Every item of the catalogue is ranked, except those that the user has seen; "
        "candidates are never sampled.",
    ),
    ("hr", "HR@k", "Hit rate: the share of queries with at least one held-out item among the first k recommendations. 0 to 1."),
    ("ndcg", "NDCG@k", "How high the held-out items rank among the first k: a hit at the top counts more than one further down. 0 to 1."),
    ("mrr", "MRR@k", "One divided by the best rank of a held-out item, if that is at most k, else 0; the mean over queries. 0 to 1."),
    ("recall", "Recall@k", "The share of a query's held-out items that is among the first k; the mean over queries. 0 to 1."),
    ("coverage", "Coverage@k", "The share of the catalogue that is recommended at least once. 0 to 1."),
    ("novelty", "Novelty@k", "How rare the recommended items are, in bits. One bit more means half as popular."),
    (
        "popularity_bias",
        "Popularity bias@k",
        "How much more popular the recommendations are than the users' own histories: 0 means equally popular, 1 twice as popular.",
    ),
    ("gini", "Exposure Gini@k", "How unevenly recommendations are spread over the items: 0 is even, 1 means always the same few items."),
    ("arp", "ARP@k", "Average recommendation popularity: how often the recommended items were chosen in training, the mean over lists."),
    (
        "aplt",
        "APLT@k",
        "Average percentage of long-tail items: the share of a list that is rarely chosen items, the mean over lists. 0 to 1.",
    ),
    (
        "tail_exposure",
        "Tail exposure@k",
        "The share of all exposure that rarely chosen items get; a place further down counts less. 0 to 1.",
    ),
    ("tail_items", "Tail items@k", "How many different rarely chosen items are recommended to anyone."),
    (
        "popularity-penalty",
        "Popularity penalty",
        "What is taken off an item's score for each standard deviation of its log popularity, so that rarely chosen items come up. "
        "`model.popularity_penalty` sets it; 0 takes nothing off.",
    ),
    (
        "miscalibration",
        "Miscalibration@k",
        "How far a list's shares of categories are from those of the user's history (Kullback-Leibler divergence); 0 is the same.",
    ),
    (
        "auc",
        "AUC, log-loss, calibration error",
        "Quality of probabilities. AUC: how often a positive example gets the higher probability. Log-loss: the penalty for wrong "
        "probabilities, less is better. Calibration error: mean distance between probability and observed share.",
    ),
    ("slice", "Slice", "A group of users or items that is measured by itself, such as new users or tail items (rarely chosen items)."),
    ("scorer", "Scorer", "A part that scores items without training, for example by which items follow each other or have similar texts."),
    (
        "fusion",
        "Fusion weight",
        "How much a part counts in the final score. Chosen on validation queries; together they make 100 %. They depend on how much is "
        "known of the user: one set without a history, one for long histories, and in between what lies between.",
    ),
    ("reranker", "Re-ranker", "A small model that orders the best candidates anew, by the probability that the user interacts with each."),
    ("shapley", "Shapley value", "The part of a score that is due to one event or one field, averaged over all orders of adding them."),
    ("quarantine", "Quarantine", "Rows that broke a rule. They are not trained on, and are kept with their reasons in the night's folder."),
)
"""(anchor, term, explanation)."""

METRICS = frozenset(anchor for anchor, term, _ in GLOSSARY if "@k" in term)
"""Anchors that a metric's name begins with."""


def anchor_of(metric: str) -> str | None:
    """The anchor that explains a metric: `ndcg_at_10` -> `ndcg`; None where no entry does."""
    stem = metric.partition("_at_")[0]
    return stem if stem in METRICS else None
