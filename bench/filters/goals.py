"""The goals of filters, text and hybrid search, judged from the results of one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.filters.scale import TARGET_RECALL
from bench.goals import Goal
from bench.peers import OURS

Results = dict[str, Any]

LEAST_OVER_PEERS = 3.0
DEFAULT_WEIGHTED = "weighted, alpha 0.5"


def _unfiltered_goal(result: Results | None, least: float) -> list[Goal]:
    """The worst filter against no filter at all, in the same run."""
    if not result or OURS not in result["backends"]:
        return []
    ours = result["backends"][OURS]
    plain = ours["timed"]["no filter"]["qps"]
    random_cases = [case["name"] for case in result["cases"] if case["kind"] in ("range", "equality")]
    others = [case["name"] for case in result["cases"] if case["kind"] in ("correlated", "changing")]
    goals = []
    for names, what, judged in ((random_cases, "50 to 0.1 %", True), (others, "correlated and changing", False)):
        worst = min(names, key=lambda name: float(ours["timed"][name]["qps"]))
        lowest = min(names, key=lambda name: float(ours["tuned"][name]["recall"]))
        ratio, recall = ours["timed"][worst]["qps"] / plain, ours["tuned"][lowest]["recall"]
        wrong = sum(each["wrong_count"] for each in ours["tuned"].values())
        goals.append(
            Goal(
                f"{result['count']:,}: slowest filter, {what}, over no filter",
                f">= {least} x, recall >= {TARGET_RECALL}" if judged else "reported",
                f"{ratio:.2f} x ({worst}: {ours['timed'][worst]['qps']:,.0f} of {plain:,.0f} QPS); lowest recall "
                f"{recall:.4f} ({lowest}); {wrong} hits outside of their filter",
                (ratio >= least and recall >= TARGET_RECALL and wrong == 0) if judged else None,
            )
        )
    return goals


def _peer_goals(results: Results) -> list[Goal]:
    """Each filter against the fastest of the peers that reach the target recall, or the most accurate."""
    result = results.get("filters")
    if not result or OURS not in result["backends"] or len(result["backends"]) < 2:
        return []
    peers = {name: found for name, found in result["backends"].items() if name != OURS}
    goals = []
    ratios: dict[str, float] = {}
    for case in (each["name"] for each in result["cases"]):
        reaching = [name for name, found in peers.items() if found["tuned"][case]["reached"]]
        if reaching:
            best = max(reaching, key=lambda name: float(peers[name]["timed"][case]["qps"]))
        else:
            best = max(peers, key=lambda name: float(peers[name]["tuned"][case]["recall"]))
        ours, theirs = result["backends"][OURS], peers[best]
        ratio = ours["timed"][case]["qps"] / theirs["timed"][case]["qps"]
        recall = ours["tuned"][case]["recall"]
        is_filter = case != "no filter"
        if is_filter:
            ratios[case] = ratio
        goals.append(
            Goal(
                f"{case}: QPS over the best peer",
                f">= {LEAST_OVER_PEERS:g} x" if is_filter else "reported",
                f"{ratio:.1f} x ({ours['timed'][case]['qps']:,.0f} at {recall:.3f}; {theirs['label']} "
                f"{theirs['timed'][case]['qps']:,.0f} at {theirs['tuned'][case]['recall']:.3f})",
                (ratio >= LEAST_OVER_PEERS and recall >= TARGET_RECALL) if is_filter else None,
            )
        )
    least = min(ratios, key=lambda case: ratios[case])
    text = f"{ratios[least]:.1f} x ({least}); {sum(ratio >= LEAST_OVER_PEERS for ratio in ratios.values())} of "
    text += f"{len(ratios)} filters reach {LEAST_OVER_PEERS:g} x"
    summary = Goal(
        "lowest of these over all filters", f">= {LEAST_OVER_PEERS:g} x", text, ratios[least] >= LEAST_OVER_PEERS
    )
    return [*goals, summary]


def _first_seen_goals(results: Results) -> list[Goal]:
    """Judged by the larger of two: counting alone, and the filtered query less the same query unfiltered."""
    result = results.get("first-seen")
    if not result:
        return []
    goals = []
    rows = (
        ("unindexed range", "new", 15.0),
        ("unindexed equality", "new", 15.0),
        ("indexed equality", "new", 1.0),
        ("indexed range", "new", None),
        ("indexed equality", "known", 0.1),
        ("indexed range", "known", None),
        ("unindexed range", "known", 0.1),
    )
    for kind, when, limit in rows:
        found = result["kinds"][kind]
        count, query = found[f"count_{when}_us"] / 1e3, found[f"{when}_over_plain_us"] / 1e3
        more = f"; first of its field {found['first_of_field_us'] / 1e3:.3f} ms" if when == "new" else ""
        goals.append(
            Goal(
                f"{kind}, {'never seen before' if when == 'new' else 'seen before'}",
                "reported" if limit is None else f"<= {limit:g} ms",
                f"count {count:.3f} ms; query {query:+.3f} ms over the unfiltered one{more}",
                None if limit is None else max(count, query) <= limit,
            )
        )
    return goals


def _text_goals(results: Results) -> list[Goal]:
    result = results.get("text")
    if not result or OURS not in result["backends"]:
        return []
    ours = result["backends"][OURS]
    p50 = {name: found["p50_us"] / 1e3 for name, found in ours["timed"].items()}
    allowed = p50["vector"] + p50["text"] + 0.2
    goals = [
        Goal(f"{result['count']:,} documents: BM25, p50", "<= 0.5 ms", f"{p50['text']:.3f} ms", p50["text"] <= 0.5),
        Goal(
            "hybrid, p50",
            "<= vector + text + 0.2 ms",
            f"{p50['hybrid']:.3f} ms; {p50['vector']:.3f} + {p50['text']:.3f} + 0.2 = {allowed:.3f} ms",
            p50["hybrid"] <= allowed,
        ),
        Goal(
            "durable `add_many` with texts, batches of 1,000",
            ">= 50,000 records/s",
            f"{ours['add_per_s']:,.0f} records/s",
            ours["add_per_s"] >= 50_000,
        ),
        Goal("text searchable after the load", "reported", f"{ours['searchable_s'] * 1e3:,.1f} ms", None),
        Goal(
            "one record added, then found by its text",
            "reported",
            f"{result['add_us'] / 1e3:.2f} ms to add, {result['found_after_add_us'] / 1e3:.2f} ms to find",
            None,
        ),
    ]
    filtered = (name for name in p50 if "passes" in name)
    goals += [Goal(f"{name}, p50", "reported", f"{p50[name]:.3f} ms", None) for name in filtered]
    peers = {name: found for name, found in result["backends"].items() if name != OURS}
    for kind in ("text", "hybrid") if peers else ():
        best = min(peers.values(), key=lambda found: float(found["timed"][kind]["p50_us"]))
        theirs = best["timed"][kind]["p50_us"] / 1e3
        text = f"{theirs / p50[kind]:.1f} x ({p50[kind]:.3f} ms; {best['label']} {theirs:.3f} ms)"
        goals.append(Goal(f"{kind}, p50 against the best peer", "reported", text, None))
    return goals


def _quality_goals(results: Results) -> list[Goal]:
    result = results.get("quality")
    if not result:
        return []
    mrr = {name: found["mrr"] for name, found in result["ways"].items()}
    side = max(("vector", "BM25"), key=lambda name: float(mrr[name]))
    best = max((name for name in mrr if name.startswith("weighted")), key=lambda name: float(mrr[name]))
    return [
        Goal(
            f"MRR@10 of {name} over the better side",
            f">= {side}",
            f"{mrr[name]:.4f} against {mrr[side]:.4f}",
            mrr[name] >= mrr[side],
        )
        for name in dict.fromkeys(("RRF", DEFAULT_WEIGHTED, best))
    ]


_PARTS: tuple[Callable[[Results], list[Goal]], ...] = (
    lambda results: _unfiltered_goal(results.get("filters"), 0.5),
    lambda results: _unfiltered_goal(results.get("large"), 0.25),
    _peer_goals,
    _first_seen_goals,
    _text_goals,
    _quality_goals,
)


def compare(results: Results) -> list[Goal]:
    """Every goal whose measurements are there."""
    return [goal for part in _PARTS for goal in part(results)]
