// Checks the cron expressions that the library makes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { source } from "./source.mjs";

const { cronOf } = await source("library/times.ts");

const CASES = [ // rhythm, time, cron expression
  ["daily", "08:00", "0 8 * * *"],
  ["weekdays", "17:30", "30 17 * * 1-5"],
  ["weekly", "09:05", "5 9 * * 1"],
  ["hourly", "00:15", "15 * * * *"],
];

for (const [rhythm, time, cron] of CASES) test(`${rhythm} at ${time}`, () => assert.equal(cronOf(rhythm, time, ""), cron));

test("without a time there is no expression", () => {
  for (const rhythm of ["daily", "weekdays", "weekly", "hourly"]) assert.equal(cronOf(rhythm, "", "0 8 * * *"), "");
});

test("an expression is kept", () => assert.equal(cronOf("cron", "08:00", " */5 * * * * "), "*/5 * * * *"));
