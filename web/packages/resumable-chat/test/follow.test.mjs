// Tests of tasks and of the event feed, read without the AI SDK.
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { followEvents, followTask } from '../dist/index.js';
import { backoff, retryAfter } from '../dist/pauses.js';
import { ANSWER, openServer, TASK } from './server.mjs';
import { FAST, LIMIT } from './timings.mjs';

const take = async (events) => {
  const taken = [];
  for await (const event of events) taken.push(event);
  return taken;
};

test('a task is read whole, whatever happens on the way', LIMIT, async (t) => {
  const server = await openServer(t, { lost: true }, { send: 5, then: 'reset' }, { status: 503 }, { send: 5, then: 'half', back: 2 }, { send: 5, then: 'silence' }, {});
  assert.deepEqual(await take(followTask(TASK, { ...FAST, api: server.api })), ANSWER);
  assert.deepEqual(new Set(server.requests.map(({ url }) => url)), new Set([`/api/chat/tasks/${TASK}/stream`]));
});

test('an expired task throws Expired, an unknown one Refused', LIMIT, async (t) => {
  const gone = await openServer(t, { status: 410 });
  await assert.rejects(take(followTask(TASK, { ...FAST, api: gone.api })), { name: 'Expired', taskId: TASK });
  const unknown = await openServer(t, { status: 404, body: '{"code":"task_not_found","detail":"There is no such task."}' });
  await assert.rejects(take(followTask(TASK, { ...FAST, api: unknown.api })), { name: 'Refused', status: 404, code: 'task_not_found' });
});

test('leaving the loop closes the connection', LIMIT, async (t) => {
  const server = await openServer(t, { send: 5, then: 'silence' });
  for await (const _ of followTask(TASK, { ...FAST, api: server.api, idleMs: 60_000 })) break;
  await server.closed();
});

const SNAPSHOT = 'data: {"type":"snapshot","turns":[],"operations":[]}\n\n';
const HINT = 'data: {"type":"title-changed","session_id":"s","title":"Hi"}\n\n';

test('the feed continues after every loss, with a snapshot first and without a cursor', LIMIT, async (t) => {
  const feed = (raw, then) => ({ send: 0, raw, then, headers: { 'x-resumable-stream-id': '' } });
  const server = await openServer(t, feed(SNAPSHOT + HINT, 'end'), { lost: true }, feed(SNAPSHOT, 'reset'), { status: 503 }, feed(SNAPSHOT, 'silence'), feed(SNAPSHOT + HINT, 'silence'));
  const types = [];
  for await (const { type } of followEvents({ ...FAST, api: server.api, sessionId: 's' })) if (types.push(type) === 6) break;
  assert.deepEqual(types, ['snapshot', 'title-changed', 'snapshot', 'snapshot', 'snapshot', 'title-changed']);
  assert.ok(server.requests.every(({ url, cursor }) => url === '/api/chat/events?session_id=s' && cursor === undefined));
});

test('the feed ends with its signal, and when the server refuses it', LIMIT, async (t) => {
  const server = await openServer(t, { send: 0, raw: SNAPSHOT, then: 'silence' });
  const abort = new AbortController();
  const reading = (async () => {
    for await (const _ of followEvents({ ...FAST, api: server.api, idleMs: 60_000, signal: abort.signal })) abort.abort();
  })();
  await assert.rejects(reading, { name: 'AbortError' });
  const closed = await openServer(t, { status: 401 });
  await assert.rejects(take(followEvents({ ...FAST, api: closed.api })), { name: 'Refused', status: 401 });
});

test('pauses double up to the longest one, with jitter', () => {
  for (const [attempt, whole] of [[0, 250], [1, 500], [4, 4000], [6, 10_000], [1000, 10_000]]) {
    assert.equal(backoff(attempt, 250, 10_000, () => 0), whole / 2);
    assert.ok(backoff(attempt, 250, 10_000, () => 0.999999) <= whole);
  }
});

test('Retry-After may be seconds or a date, and has a limit', () => {
  const of = (value) => retryAfter(new Response(null, { headers: value === undefined ? {} : { 'retry-after': value } }), Date.parse('2026-01-01T00:00:00Z'));
  assert.deepEqual(['3', 'Thu, 01 Jan 2026 00:00:05 GMT', 'Thu, 01 Jan 2020 00:00:00 GMT', '99999', 'soon', undefined].map(of), [3000, 5000, 0, 120_000, 0, 0]);
});

test('a task that has ended leaves no listener on its signal', LIMIT, async (t) => {
  const server = await openServer(t, {});
  const { signal } = new AbortController();
  for (let n = 0; n < 3; n++) await take(followTask(TASK, { ...FAST, api: server.api, signal }));
  assert.equal(getEventListeners(signal, 'abort').length, 0);
});

for (const limit of ['idleMs', 'minDelayMs', 'maxDelayMs']) {
  test(`${limit} longer than the longest timer is refused`, LIMIT, async () => {
    await assert.rejects(take(followTask(TASK, { maxDelayMs: 2 ** 31 - 1, [limit]: Infinity })), RangeError);
  });
}
