"""Tables of text in the forms that other programs read."""

import csv
import io


def markdown(cells: list[list[str]]) -> str:
    head, *body = cells
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body)) + "\n"


def comma_separated(cells: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(cells)
    return text.getvalue()
