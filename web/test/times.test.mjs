// Checks the cron expressions that the library makes, and their words.
import assert from "node:assert/strict";
import { test } from "node:test";
import { source } from "./source.mjs";

const { cronOf, inWords } = await source("library/times.ts");

const CASES = [ // rhythm, time, cron expression, words
  ["daily", "08:00", "0 8 * * *", "Every day at 08:00"],
  ["weekdays", "17:30", "30 17 * * 1-5", "Every weekday at 17:30"],
  ["weekly", "09:05", "5 9 * * 1", "Every Monday at 09:05"],
  ["hourly", "00:15", "15 * * * *", "Every hour at minute 15"],
];

for (const [rhythm, time, cron, words] of CASES)
  test(`${rhythm} at ${time}`, () => {
    assert.equal(cronOf(rhythm, time, ""), cron);
    assert.equal(inWords(cron), words);
  });

test("without a time there is no expression", () => {
  for (const rhythm of ["daily", "weekdays", "weekly", "hourly"]) assert.equal(cronOf(rhythm, "", "0 8 * * *"), "");
});

test("an expression is kept", () => {
  assert.equal(cronOf("cron", "08:00", " */5 * * * * "), "*/5 * * * *");
  for (const cron of ["*/5 * * * *", "0 8 1 * *", "0 8 * * 1-3", "nonsense", ""]) assert.equal(inWords(cron), cron);
  assert.equal(inWords("0 8 * * 0,3"), "Every Sunday and Wednesday at 08:00");
  assert.equal(inWords("0 * * * *"), "Every hour");
});
