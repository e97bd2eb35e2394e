"""The measurements as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msjax.cli.tables import table


def tables(found: Sequence[dict[str, Any]]) -> str:
    """What was measured and checked, part by part; empty parts are left out."""
    parts = {
        name: [item for item in found if item["part"] == name]
        for name in ("parity", "decoding", "peer", "simulators")
    }
    made = [_checks(parts["parity"]), _decoding(parts["decoding"], parts["peer"])]
    made.append(_simulators(parts["simulators"]))
    left = [f"{item['name']}: {item['says']}" for item in found if _open(item)]
    if left:
        made.append("Left open\n" + "\n".join(left))
    return "\n\n".join(text for text in made if text)


def _open(item: dict[str, Any]) -> bool:
    return item["says"].startswith("not ")


def _checks(items: Sequence[dict[str, Any]]) -> str:
    rows = [
        (item["name"], {True: "ok", False: "WRONG"}[item["passed"]], _number(item, "largest_error"))
        for item in items
        if item["passed"] is not None
    ]
    return table(("check", "result", "largest error"), rows) if rows else ""


def _decoding(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> str:
    peers = {item["name"]: item["values"].get("decode_tokens_per_second") for item in theirs}
    rows = []
    for item in ours:
        values = item["values"]
        rate = values.get("decode_tokens_per_second")
        if rate is None:
            continue
        peer = peers.get(item["name"])
        read = (values["weight_bytes_per_token"] + values["cache_bytes_per_token"]) / 1e6
        rows.append(
            (
                item["name"],
                f"{rate:,.0f}",
                f"{read:,.2f}",
                f"{values['share_of_bandwidth']:.1%}",
                f"{values['prefill_tokens_per_second']:,.0f}",
                "-" if peer is None else f"{peer:,.0f}",
                "-" if peer is None else f"{rate / peer:.2f}",
            )
        )
    header = ("decoder", "tokens/s", "MB/token", "of bandwidth", "prefill/s", "torch", "ratio")
    return table(header, rows) if rows else ""


def _simulators(items: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            item["name"],
            _number(item, "transitions_per_second"),
            _number(item, "share_of_generator"),
            _number(item, "effective_draws_per_second"),
        )
        for item in items
        if item["values"]
    ]
    header = ("simulator", "transitions/s", "of generator", "effective draws/s")
    return table(header, rows) if rows else ""


def _number(item: dict[str, Any], name: str) -> str:
    value = item["values"].get(name)
    return "" if value is None else f"{value:.3g}"
