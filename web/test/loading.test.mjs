// Checks that parts of the page are loaded when the network is back.
import assert from "node:assert/strict";
import { test } from "node:test";
import { source } from "./source.mjs";

Object.assign(globalThis, { addEventListener: online("add"), removeEventListener: online("remove") });
const listeners = new Set();
function online(act) {
  return (name, listener) => name === "online" && (act === "add" ? listeners.add(listener) : listeners.delete(listener));
}
const { untilLoaded } = await source("loading.tsx");

function failing(times) {
  let calls = 0;
  return async () => {
    calls += 1;
    if (calls <= times) throw new TypeError("Failed to fetch dynamically imported module");
    return calls;
  };
}

test("a part is loaded after some failures", async () => {
  assert.equal(await untilLoaded(failing(2), [0, 0, 0]), 3);
  assert.equal(listeners.size, 0);
});

test("a part is loaded as soon as the network is back", async () => {
  const loading = untilLoaded(failing(1), [3600]);
  await new Promise((resolve) => setImmediate(resolve));
  for (const listener of listeners) listener();
  assert.equal(await loading, 2);
});

test("the last failure is told", async () => {
  await assert.rejects(untilLoaded(failing(9), [0, 0]), TypeError);
});
