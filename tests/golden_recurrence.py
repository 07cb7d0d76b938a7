#!/usr/bin/env python3
"""Writes the first dates of random recurrence rules, by python-dateutil, to
tests/golden/recurrence.txt.

The dates of `todo-core/src/todos/recurrence/dates.rs` are tested against that file. Run this again
after a change of the rules, with this version of python-dateutil:

    pip install python-dateutil==2.9.0.post0 && python3 tests/golden_recurrence.py

A line is the first day of the series, the rule, and the days from the first day to each of up to 12
dates within 10 years of it. Three things are left out, in which dateutil differs from RFC 5545:
weekdays with a number beside some without one (it intersects the two), and positions of weeks, which
it counts from the first date instead of the beginning of the week. For the latter, the series begins
with its week here, and the dates before its first day are left out.
"""

import calendar
import random
from datetime import date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from dateutil.rrule import rrulestr

VERSION = "2.9.0.post0"
RULES = 2500
DAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]


def some(values, most):
    count = random.randint(1, most)
    return ",".join(str(value) for value in random.sample(values, min(count, len(values))))


def numbers(most):
    return [n for n in range(-most, most + 1) if n]


def random_rule():
    frequency = random.choice(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"])
    parts = {}
    if random.random() < 0.5:
        most = random.choice([4, 30, 366] if frequency == "DAILY" else [3, 12])
        parts["INTERVAL"] = random.randint(1, most)
    if random.random() < 0.3:
        parts["BYMONTH"] = some(range(1, 13), 4)
    if frequency != "WEEKLY" and random.random() < 0.4:
        parts["BYMONTHDAY"] = some(numbers(31), 4)
    if random.random() < 0.5:
        if frequency in ("MONTHLY", "YEARLY") and random.random() < 0.5:
            most = 5 if frequency == "MONTHLY" or "BYMONTH" in parts else 53
            nths = random.sample(numbers(most), random.randint(1, 3))
            parts["BYDAY"] = ",".join(f"{nth}{random.choice(DAYS)}" for nth in nths)
        else:
            parts["BYDAY"] = some(DAYS, 5)
    if parts.keys() & {"BYMONTH", "BYMONTHDAY", "BYDAY"} and random.random() < 0.4:
        most = {"DAILY": 1, "WEEKLY": 3, "MONTHLY": 6, "YEARLY": 30}[frequency]
        parts["BYSETPOS"] = some(numbers(most), 3)
    if random.random() < 0.3:
        parts["WKST"] = random.choice(DAYS[1:])
    rest = list(parts.items())
    random.shuffle(rest)
    return frequency, parts, ";".join(f"{k}={v}" for k, v in [("FREQ", frequency), *rest])


def dates(first, frequency, parts, rule):
    start = first
    if frequency == "WEEKLY" and "BYSETPOS" in parts:
        week_start = DAYS.index(parts.get("WKST", "MO"))
        start = first - timedelta(days=(first.weekday() - week_start) % 7)
        if "BYDAY" not in parts:
            rule += f";BYDAY={DAYS[first.weekday()]}"
    day = calendar.monthrange(first.year + 10, first.month)[1]
    last = date(first.year + 10, first.month, min(first.day, day))
    # For a rule without dates, dateutil searches up to the year 9999.
    begin = datetime.combine(start, datetime.min.time())
    until = last.strftime("%Y%m%d")
    found = []
    for found_at in rrulestr(f"{rule};UNTIL={until}", dtstart=begin):
        if found_at.date() >= first:
            found.append((found_at.date() - first).days)
        if len(found) == 12:
            break
    return found


def main():
    if version("python-dateutil") != VERSION:
        raise SystemExit(f"requires python-dateutil {VERSION}")
    random.seed(15)
    lines = []
    while len(lines) < RULES:
        first = date(1970, 1, 1) + timedelta(days=random.randint(0, 60_000))
        frequency, parts, rule = random_rule()
        found = dates(first, frequency, parts, rule)
        # Rules without dates are all alike.
        if found or random.random() < 0.1:
            lines.append(" ".join([str(first), rule, *map(str, found)]))
    path = Path(__file__).parent / "golden" / "recurrence.txt"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
