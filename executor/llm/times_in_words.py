"""Times in words as cron expressions, for the scripted model: “every morning at 8”, “each Monday at 9:30”, “hourly”."""

from __future__ import annotations

import re

TIMES = r"(?:every|each|daily|hourly|weekly|monthly)\b"
"""The beginning of a time, as a regular expression."""
_CLOCK = re.compile(r"\bat (\d{1,2})(?:[:.](\d{2}))?\s*(?:([ap])\.?m\b)?", re.IGNORECASE)
_EVERY = re.compile(r"\b(?:every|each) (?:(\d{1,2}) )?(minute|hour)s?\b|\b(hourly)\b", re.IGNORECASE)
_PARTS_OF_DAY = {"morning": 8, "noon": 12, "afternoon": 15, "evening": 18, "night": 22, "midnight": 0}
_AFTER_NOON = {"afternoon": 1, "evening": 1, "night": 6}
"""The first hour of the clock that means one after noon: “every night at 2” is early, “every night at 11” is late."""
_DAYS = {"weekday": "1-5", "weekend": "0,6"} | {
    day: str(number)
    for number, day in enumerate(["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"])
}
_NTH_DAY = re.compile(rf"\b(first|second|third|fourth|last) ({'|'.join(list(_DAYS)[2:])})\b", re.IGNORECASE)
_NTHS = ("first", "second", "third", "fourth")
_MONTHLY = re.compile(r"\bmonthly\b|\b(?:every|each) month\b", re.IGNORECASE)
_DATE = re.compile(r"\bon the (?:(\d{1,2})(?:st|nd|rd|th)|last day)\b", re.IGNORECASE)


def cron_of(text: str) -> str:
    """Returns the cron expression of a time in words. What it does not understand becomes every day at 8."""
    if found := _EVERY.search(text):
        step = "*" if found[1] in (None, "1", "0") else f"*/{found[1]}"
        return f"{step} * * * *" if (found[2] or "").lower() == "minute" else f"0 {step} * * *"
    words = re.findall(r"[a-z]+", text.lower())
    minute, hour = _time_in(text, words)
    if found := _NTH_DAY.search(text):
        day, nth = _DAYS[found[2].lower()], found[1].lower()
        return f"{minute} {hour} * * {day}{'L' if nth == 'last' else f'#{_NTHS.index(nth) + 1}'}"
    if _MONTHLY.search(text):
        found = _DATE.search(text)
        date = "1" if found is None else (found[1] or "L")
        return f"{minute} {hour} {date if date == 'L' else min(max(int(date), 1), 31)} * *"
    days = [number for day, number in _DAYS.items() if day in words or f"{day}s" in words]
    if not days and ("weekly" in words or "week" in words):
        days = ["1"]
    return f"{minute} {hour} * * {','.join(days) or '*'}"


def _time_in(text: str, words: list[str]) -> tuple[int, int]:
    """Returns the minute and the hour."""
    if found := _CLOCK.search(text):
        minute, hour, half = int(found[2] or 0), int(found[1]), (found[3] or "").lower()
        if half:
            hour = hour % 12 + (12 if half == "p" else 0)
        elif any(part in words and first <= hour < 12 for part, first in _AFTER_NOON.items()):
            hour += 12
        if hour < 24 and minute < 60:
            return minute, hour
    return 0, next((hour for part, hour in _PARTS_OF_DAY.items() if part in words), 8)
