"""Templates of pages, in `reports/templates`, and the filters that write numbers, months and names in them.

Templates escape every text from outside. A name without a value is an error, and never an empty place on a page.
"""

from __future__ import annotations

import functools

import jinja2

from credit.accounting.amounts import format_percent
from credit.reporting.tables import credits_text, nats_text, share_text
from credit.resources import resource
from credit.text import printable

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August",
    "September", "October", "November", "December",
)  # fmt: skip
"""Spelled here, because the calendar's names change with the locale."""


def template(name: str) -> jinja2.Template:
    """Return the template in the file `name`."""
    return _environment().get_template(name)


@functools.cache
def _environment() -> jinja2.Environment:
    # Strict: a misspelt name must fail a test, not print a hole on a statement.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource("reports/templates")),
        autoescape=jinja2.select_autoescape(disabled_extensions=["txt.j2"], default=True, default_for_string=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "amount": _amount_text,
        "count": "{:,}".format,
        "credits": lambda credit_micro: _minus(credits_text(int(credit_micro))),
        "fraction": _fraction_text,
        "day": lambda moment: moment.date().isoformat(),
        "month": _month_text,
        "percent": lambda ppm: format_percent(ppm).replace("%", " %"),
        "nats": lambda nats: _minus(nats_text(nats)),
        "plain": printable,
        "share": lambda share: _minus(share_text(share)),
    }
    return environment


def _amount_text(amount: str) -> str:
    """Return a decimal string with commas between thousands. It stays text: no digit can be lost."""
    whole, point, fraction = amount.lstrip("-").partition(".")
    return ("−" if amount.startswith("-") else "") + f"{int(whole):,}{point}{fraction}"


def _fraction_text(fraction: str) -> str:
    """Return `credits/total` as percent."""
    part, whole = map(int, fraction.split("/"))
    return _minus(share_text(part / whole if whole else 0.0))


def _month_text(period: str) -> str:
    return f"{_MONTHS[int(period[5:]) - 1]} {period[:4]}"


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
