"""Writes a page with sequence diagrams: one HTML file without scripts, and without anything from elsewhere.

Everything on the page is escaped, because most of it came from a network. A policy in the page's head forbids all that
the page doesn't need, in case that an escape is missing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from oa_protocol.engine.phases import Phase
from oa_protocol.tape._phases_svg import MARKERS, STYLE, phases_svg

LANES = ("owner", "engine", "network", "server")
"""Who takes part, from left to right."""

FAULTS_LISTED = 20
"""How many faults have a link at the top."""
_LONGEST_LABEL = 300
_LONGEST_DETAIL = 4000


@dataclass(frozen=True, slots=True)
class Row:
    """A step on the page.

    Attributes:
        number: the number of the step.
        start: who did it, as an index of ``LANES``.
        end: whom it reached. If that is ``start``, it is a note.
        what: what was done, in words.
        news: what the engine says to the owner then.
        phase: the phase afterwards, if it is another one.
        now: the time in seconds, or None if it isn't known.
        is_fault: something went wrong.
        details: what the step opens to, as pairs of a heading and a text.
        answers: the number of the step that this one replies to.

    """

    number: int
    start: int
    end: int
    what: str
    news: Sequence[str] = ()
    phase: str | None = None
    now: float | None = None
    is_fault: bool = False
    details: Sequence[tuple[str, str]] = ()
    answers: int | None = None


@dataclass(frozen=True, slots=True)
class Diagram:
    """A conversation on the page. ``problem`` is what is wrong with it, and ``way`` are the phases that it was in."""

    title: str
    rows: Sequence[Row]
    way: Sequence[Phase] = ()
    problem: str = ""
    facts: Sequence[str] = field(default=())


def render(title: str, diagrams: Iterable[Diagram]) -> str:
    """Return the page. Its style has a hash in the page's policy, so nothing else can bring a style or a script."""
    style = STYLE + Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">',
        f"<title>{_text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>",
        f'<svg class="phases" width="0" height="0" aria-hidden="true">{MARKERS}</svg>',
        f"<h1>{_text(title)}</h1>",
        '<p class="filter"><input type="checkbox" id="faults"><label for="faults">Show only faults</label></p>',
        *(_diagram(number, diagram) for number, diagram in enumerate(diagrams, 1)),
        "</main>\n</body>\n</html>\n",
    ]
    # A lone surrogate, which JSON may contain, can't be written to a file.
    return "\n".join(parts).encode(errors="replace").decode()


def _diagram(number: int, diagram: Diagram) -> str:
    key = f"c{number}"
    faults = [row for row in diagram.rows if row.is_fault]
    parts = [
        f'<section aria-labelledby="{key}">\n<h2 id="{key}">{_text(diagram.title)}</h2>',
        _facts(diagram, len(faults)),
    ]
    if diagram.problem:
        parts.append(f'<p class="problem" role="note"><strong>Problem:</strong> {_text(diagram.problem)}</p>')
    if faults:
        links = [f'<li><a href="#{key}s{row.number}">{row.number}: {_text(row.what)}</a></li>' for row in faults]
        more = [f"<li>and {len(links) - FAULTS_LISTED} more</li>"] if len(links) > FAULTS_LISTED else []
        listed = "".join([*links[:FAULTS_LISTED], *more])
        parts.append(f'<nav class="faults" aria-label="Faults"><h3>Faults</h3><ul>{listed}</ul></nav>')
    parts.append(f"<h3>The way through the phases</h3>\n<figure>{phases_svg(diagram.way, standalone=False)}</figure>")
    heads = "".join(f"<span>{lane}</span>" for lane in LANES)
    parts.append("<h3>Step by step</h3>")
    if any(row.details for row in diagram.rows):
        parts.append('<p class="hint">Open a step to see what was sent.</p>')
    parts.append(f'<div class="heads" aria-hidden="true"><span>step</span><div>{heads}</div><span>phase</span></div>')
    parts.append(f'<ol class="steps">\n{"".join(_row(key, row) for row in diagram.rows)}</ol>\n</section>')
    return "\n".join(parts)


def _facts(diagram: Diagram, faults: int) -> str:
    facts = [*diagram.facts, f"{len(diagram.rows):,} steps", f"{faults:,} {'fault' if faults == 1 else 'faults'}"]
    last = diagram.way[-1].name if diagram.way else ""
    mood = {"DELETED": " good", "LEAKED": " bad", "FAILED": " bad"}.get(last, "")
    end = f'<li class="badge{mood}">{last}</li>' if last else ""
    return f'<ul class="facts">{end}{"".join(f"<li>{_text(fact)}</li>" for fact in facts)}</ul>'


def _row(key: str, row: Row) -> str:
    time = "" if row.now is None else f"<time>{row.now:.3f} s</time>"
    arrows = [_arrow(row.start, row.end, row.what), *(_arrow(1, 0, news) for news in row.news)]
    phase = f'<span class="phase">{_text(row.phase)}</span>' if row.phase else ""
    fault, mark = (' class="fault"', "<i>Fault. </i>") if row.is_fault else ("", "")
    head = (
        f'<span class="step"><b>{row.number}</b> {time}</span>{mark}<span class="lanes">{"".join(arrows)}</span>{phase}'
    )
    details = [f"<h4>{_text(name)}</h4><pre>{_text(text, _LONGEST_DETAIL)}</pre>" for name, text in row.details]
    if row.answers is not None:
        details.append(f'<p><a href="#{key}s{row.answers}">Go to the request, step {row.answers}</a></p>')
    body = f"<details><summary>{head}</summary>{''.join(details)}</details>" if details else f"<div>{head}</div>"
    return f'<li id="{key}s{row.number}"{fault}>{body}</li>\n'


def _arrow(start: int, end: int, what: str) -> str:
    ends = LANES[start] if start == end else f"{LANES[start]} to {LANES[end]}"
    left, width, side = min(start, end), abs(end - start), "r" if end > start else "l" if end < start else "n"
    return f'<span class="a a{left}{width} {side}"><i>{ends}: </i><bdi>{_text(what, _LONGEST_LABEL)}</bdi></span>'


def _text(text: str, longest: int | None = None) -> str:
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}… ({len(text):,} characters)"
    return escape(text)
