"""Times in words as cron expressions."""

from __future__ import annotations

import re

_TIME = re.compile(r"\bat (\d{1,2})(?:[:.h](\d{2}))?\s*(?:([ap])\.?m\b)?", re.IGNORECASE)
_AFTER_NOON = re.compile(r"\b(?:afternoons?|evenings?)\b", re.IGNORECASE)
_NIGHT = re.compile(r"\bnights?\b", re.IGNORECASE)
_HOURS = (
    (re.compile(r"\bmornings?\b", re.IGNORECASE), 8),
    (re.compile(r"\b(?:noon|midday|lunch\w*)\b", re.IGNORECASE), 12),
    (re.compile(r"\bafternoons?\b", re.IGNORECASE), 15),
    (re.compile(r"\bevenings?\b", re.IGNORECASE), 18),
    (re.compile(r"\bmidnight\b", re.IGNORECASE), 0),
    (re.compile(r"\bnights?\b", re.IGNORECASE), 22),
)
_DAYS = (
    (re.compile(r"\b(?:weekdays?|working days?|workdays?)\b", re.IGNORECASE), "1-5"),
    (re.compile(r"\bweekends?\b", re.IGNORECASE), "0,6"),
    *(
        (re.compile(rf"\b{day}s?\b", re.IGNORECASE), str(number))
        for number, day in enumerate(
            ["sundays?", "mondays?", "tuesdays?", "wednesdays?", "thursdays?", "fridays?", "saturdays?"]
        )
    ),
)
_NTH_DAY = re.compile(r"\b(first|second|third|fourth|last) (sun|mon|tues|wednes|thurs|fri|satur)day\b", re.IGNORECASE)
_NTHS, _NAMES = ("first", "second", "third", "fourth"), ("sun", "mon", "tues", "wednes", "thurs", "fri", "satur")
_MINUTES = re.compile(r"\bevery (?:(\d{1,2}|other) )?minutes?\b", re.IGNORECASE)
_HOURLY = re.compile(r"\b(?:every|each) (?:(\d{1,2}|other) )?hours?\b|\bhourly\b", re.IGNORECASE)
DEFAULT = "0 8 * * *"


def cron_of(text: str) -> str:
    """Returns the cron expression of a time in words. Without any known word, it is every morning at 8."""
    if found := _MINUTES.search(text):
        return f"{_every(found[1], 59)} * * * *"
    if found := _HOURLY.search(text):
        return f"0 {_every(found[1], 23)} * * *"
    minute, hour = _time_of(text)
    if re.search(r"\b(?:yearly|every year|each year|annually)\b", text, re.IGNORECASE):
        return f"{minute} {hour} 1 1 *"
    if re.search(r"\b(?:monthly|every month|each month)\b", text, re.IGNORECASE):
        return f"{minute} {hour} 1 * *"
    if found := _NTH_DAY.search(text):
        nth, day = found[1].lower(), _NAMES.index(found[2].lower())
        return f"{minute} {hour} * * {day}{'L' if nth == 'last' else f'#{_NTHS.index(nth) + 1}'}"
    days = [number for word, number in _DAYS if word.search(text)]
    if not days and re.search(r"\b(?:weekly|every week|each week)\b", text, re.IGNORECASE):
        days = ["1"]
    every_other = re.search(r"\bevery other day\b", text, re.IGNORECASE) is not None
    return f"{minute} {hour} {'*/2' if every_other else '*'} * {','.join(days) or '*'}"


def _every(said: str | None, most: int) -> str:
    number = 2 if said == "other" else int(said or 1)
    return "*" if number <= 1 or number > most else f"*/{number}"


def _time_of(text: str) -> tuple[int, int]:
    """Returns the minute and the hour."""
    found = _TIME.search(text)
    if found is not None:
        hour, minute, half = int(found[1]), int(found[2] or 0), (found[3] or "").lower()
        if half and 1 <= hour <= 12:
            hour = hour % 12 + (12 if half == "p" else 0)
        elif (1 <= hour < 12 and _AFTER_NOON.search(text)) or (6 <= hour < 12 and _NIGHT.search(text)):
            hour += 12
        if hour < 24 and minute < 60:
            return minute, hour
    return 0, next((hour for word, hour in _HOURS if word.search(text)), 8)
