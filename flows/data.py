"""The command `seedbed data`: the data sets, and which of them are here. Loads neither torch nor any of the sets."""

from __future__ import annotations

from rich.console import Console

from harness import data

__all__ = ["show_data"]


def show_data(*, as_json: bool) -> int:
    """Prints every data set with its kind, its training rows, and "here" or how to get it.

    Args:
        as_json: one JSON object instead.
    """
    cards = [data.about(name) for name in data.names()]
    lacking = {card.name: data.lacking(card.name) for card in cards}
    if as_json:
        from flows.cli import print_json

        entries = [{**vars(card), "rows": dict(card.rows), "missing": lacking[card.name]} for card in cards]
        print_json({"data": entries})
        return 0
    console = Console(highlight=False, soft_wrap=True)
    for card in cards:
        rows = f"{card.rows['train']:,}" if card.rows else "-"
        state = f"[yellow]missing: {card.get}[/yellow]" if lacking[card.name] else "here"
        console.print(f"{card.name:<18} {card.kind:<7} {rows:>8}  {state}")
    console.print("or a path: images by class, .csv, .parquet, .txt, .jsonl (docs/data.md)")
    return 0
