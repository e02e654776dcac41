"""Writing tables: Markdown, CSV, LaTeX and HTML."""

import html
from dataclasses import dataclass
from pathlib import Path

from spnet.files import write_text
from spnet.report.tables import comma_separated, markdown


@dataclass(frozen=True)
class Printed:
    """A table with its title and the sentences below it; `cells` are a head and rows of equal length."""

    title: str
    cells: list[list[str]]
    notes: list[str]


def write_tables(stem: Path, tables: list[Printed], foot: list[str]) -> list[Path]:
    """Write `stem`.md, .csv, .tex and .html, each with every table; returns the files."""
    texts = {".md": _markdown, ".csv": _csv, ".tex": _latex, ".html": _html}
    files = []
    for suffix, text in texts.items():
        file = stem.with_name(stem.name + suffix)
        write_text(file, text(tables, foot))
        files.append(file)
    return files


def _markdown(tables: list[Printed], foot: list[str]) -> str:
    parts = []
    for table in tables:
        parts.append(f"## {table.title}\n\n{markdown(table.cells)}")
        if table.notes:
            parts.append("".join(f"- {note}\n" for note in table.notes))
    parts.append("".join(f"{line}\n" for line in foot))
    return "\n".join(parts)


def _csv(tables: list[Printed], foot: list[str]) -> str:
    """One block a table, its title in the first column; sentences are left to the other forms."""
    return "\n".join(
        comma_separated([["table", *table.cells[0]], *([table.title, *row] for row in table.cells[1:])])
        for table in tables
    )


_LATEX = str.maketrans(
    {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "$": r"\$", "±": r"$\pm$", "<": "$<$", ">": "$>$"}
)


def _latex(tables: list[Printed], foot: list[str]) -> str:
    parts = ["% needs \\usepackage{booktabs}", *(f"% {line}" for line in foot)]
    for table in tables:
        head, *body = ([cell.translate(_LATEX) for cell in row] for row in table.cells)
        rows = "\n".join(" & ".join(row) + r" \\" for row in body)
        parts.append(
            f"\\begin{{table}}\n\\caption{{{table.title.translate(_LATEX)}}}\n"
            f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}\n\\toprule\n{' & '.join(head)} \\\\\n\\midrule\n{rows}\n"
            "\\bottomrule\n\\end{tabular}\n\\end{table}"
        )
        if table.notes:
            parts.append("\n".join(f"% {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#111;background:#fff}table{border-collapse:collapse}"
    "th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid #ddd}"
    "th{border-bottom:2px solid #111}th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}"
    "footer,li{color:#444;font-size:.9em}"
)


def _html(tables: list[Printed], foot: list[str]) -> str:
    def row(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = []
    for table in tables:
        head, *rows = table.cells
        lines = "\n".join(row(cells, "td") for cells in rows)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
        body.append(
            f"<h2>{html.escape(table.title)}</h2>\n<div class=wide><table>\n<thead>{row(head, 'th')}</thead>\n"
            f"<tbody>\n{lines}\n</tbody></table></div>\n" + (f"<ul>{notes}</ul>" if notes else "")
        )
    ends = "".join(f"<p>{html.escape(line)}</p>" for line in foot if line)
    title = html.escape(tables[0].title if tables else "spnet")
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>\n'
        + "\n".join(body)
        + f"\n<footer>{ends}</footer></html>\n"
    )
