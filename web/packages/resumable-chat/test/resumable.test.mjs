// Tests of the fetch alone: its requests, their timing, and when it stops.
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { afterEach, test } from 'node:test';
import { resumable } from '../dist/index.js';
import { idOf, openServer, TASK, TEXT } from './server.mjs';
import { FAST, LIMIT } from './timings.mjs';

const POST = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"id":"s","messages":[{"id":"m1"}]}' };

const textIn = (sse) => [...sse.matchAll(/"delta":"([^"]*)"/g)].map(([, delta]) => delta).join('');
const send = async (server, options, init = POST) => resumable({ ...FAST, ...options })(server.api, init);
const told = async (server, options, init) => (await send(server, options, init)).text();

test('the request for the rest has the cursor and the page\'s headers, and no body', LIMIT, async (t) => {
  const server = await openServer(t, { send: 4, then: 'end' }, {});
  assert.equal(textIn(await told(server, { accept: ['reset-step'] }, { ...POST, headers: { ...POST.headers, 'x-mine': '1' } })), TEXT);
  const [first, second] = server.requests;
  assert.equal(first.url, '/api/chat?accept=reset-step');
  assert.equal(second.url, `/api/chat/tasks/${TASK}/stream?accept=reset-step`);
  assert.equal(second.cursor, idOf(3));
  assert.equal(second.headers['x-mine'], '1');
  assert.equal(second.body, '');
  assert.equal(second.headers['content-type'], undefined);
});

test('a POST is repeated with the same body and key; a stream body or a PATCH is not repeated', LIMIT, async (t) => {
  const server = await openServer(t, { lost: true }, { status: 503 }, { lost: true }, {});
  assert.equal(textIn(await told(server)), TEXT);
  assert.equal(new Set(server.requests.map(({ headers, body }) => headers['idempotency-key'] + body)).size, 1);
  assert.equal(server.requests.length, 4);
  assert.match(server.requests[0].headers['idempotency-key'], /^[0-9a-f]{32}$/);

  const other = await openServer(t, { lost: true });
  const stream = new ReadableStream({ start: (out) => (out.enqueue(new TextEncoder().encode('{}')), out.close()) });
  await assert.rejects(send(other, {}, { ...POST, body: stream, duplex: 'half' }), TypeError);
  await assert.rejects(send(other, {}, { method: 'PATCH', body: '{}' }), TypeError);
  assert.equal(other.requests.length, 2);
});

test('requests without an answer are repeated: the POST and the GET after it', LIMIT, async (t) => {
  const server = await openServer(t, { hang: true }, { send: 4, then: 'end' }, { hang: true }, {});
  assert.equal(textIn(await told(server)), TEXT);
  assert.deepEqual(server.requests.map(({ method }) => method), ['POST', 'POST', 'GET', 'GET']);
});

test('the page\'s own idempotency key is kept', LIMIT, async (t) => {
  const server = await openServer(t, {});
  await told(server, {}, { ...POST, headers: { 'Idempotency-Key': 'mine' } });
  assert.equal(server.requests[0].headers['idempotency-key'], 'mine');
});

test('a token that expires during an answer is renewed once; if the new one is refused, the answer ends', LIMIT, async (t) => {
  const server = await openServer(t, { send: 4, then: 'reset' }, { status: 401 }, { send: 4, then: 'end' }, {});
  const asked = [];
  const headers = async ({ expired }) => {
    asked.push(expired);
    return { authorization: `Bearer ${asked.filter(Boolean).length}` };
  };
  assert.equal(textIn(await told(server, { headers })), TEXT);
  assert.deepEqual(asked, [false, false, true, false]);
  assert.equal(server.requests[2].headers.authorization, 'Bearer 1');

  const closed = await openServer(t, { send: 4, then: 'reset' }, { status: 401, body: '{"code":"unauthenticated","detail":"Sign in."}' });
  const refused = await told(closed, { headers }).catch((error) => error);
  assert.deepEqual([refused.name, refused.status, refused.code, refused.message], ['Refused', 401, 'unauthenticated', 'Sign in.']);
  assert.equal(closed.requests.length, 3);
});

test('Retry-After is honoured for the POST and for the GET after it', LIMIT, async (t) => {
  const busy = (status) => ({ status, headers: { 'retry-after': '1' } });
  const server = await openServer(t, busy(503), { send: 4, then: 'end' }, busy(429), {});
  assert.equal(textIn(await told(server)), TEXT);
  const [first, second, third, fourth] = server.requests.map(({ at }) => at);
  assert.ok(second - first >= 990 && fourth - third >= 990);
  assert.ok(third - second < 900);
});

test('a message that is refused with 429 is not sent again', LIMIT, async (t) => {
  const server = await openServer(t, { status: 429, headers: { 'retry-after': '1' }, body: 'full' });
  const answer = await send(server);
  assert.deepEqual([answer.status, await answer.text(), server.requests.length], [429, 'full', 1]);
});

test('a POST without a body is sent again with the same key', LIMIT, async (t) => {
  const server = await openServer(t, { lost: true }, { status: 200, body: '{}' });
  const answer = await resumable({ minDelayMs: 1, maxDelayMs: 1 })(`${server.api}/tasks/x/cancel`, { method: 'POST' });
  assert.deepEqual([answer.status, server.requests.length], [200, 2]);
  assert.ok(server.requests[0].headers['idempotency-key']);
  assert.equal(server.requests[0].headers['idempotency-key'], server.requests[1].headers['idempotency-key']);
});

for (const status of [400, 403, 404, 409, 422]) {
  test(`${status} ends it`, LIMIT, async (t) => {
    const server = await openServer(t, { send: 4, then: 'end' }, { status });
    await assert.rejects(told(server), { name: 'Refused', status });
    assert.equal(server.requests.length, 2);

    const other = await openServer(t, { status, body: 'no' });
    const answer = await send(other);
    assert.deepEqual([answer.status, await answer.text(), other.requests.length], [status, 'no', 1]);
  });
}

test('it gives up after `attempts` attempts without an event, with an error that the AI SDK takes for a lost connection', LIMIT, async (t) => {
  const server = await openServer(t, { send: 4, then: 'end' }, { send: 0, then: 'end' });
  await assert.rejects(told(server, { attempts: 5 }), { name: 'ConnectionLost', message: /network/ });
  const busy = await openServer(t, { status: 503, body: 'busy' });
  const answer = await send(busy, { attempts: 3 });
  assert.deepEqual([answer.status, await answer.text(), busy.requests.length], [503, 'busy', 4]);
});

test('progress resets the count of attempts', LIMIT, async (t) => {
  const server = await openServer(t, ...Array.from({ length: 20 }, () => ({ send: 1, then: 'end' })), {});
  assert.equal(textIn(await told(server, { attempts: 2 })), TEXT);
});

test('a broken replay without cursors is not passed on twice', LIMIT, async (t) => {
  const server = await openServer(t, { send: 20, then: 'reset', ids: false }, { ids: false });
  const text = await told(server);
  assert.equal(textIn(text), TEXT);
  assert.ok(text.endsWith('data: [DONE]\n\n'));
});

test('comments, CRLF and letters cut in two are read correctly', LIMIT, async (t) => {
  const server = await openServer(t, { send: 0, then: 'done', raw: 'id: 7001-1\r\ndata: {"delta":"Grüße 🙂"}\r\n\r\n: keep-alive\n\n' });
  const cut = (url, init) => fetch(url, init).then((response) => new Response(response.body.pipeThrough(byteByByte()), response));
  assert.equal(textIn(await told(server, { fetch: cut })), 'Grüße 🙂');
});

const byteByByte = () => new TransformStream({ transform: (bytes, out) => bytes.forEach((byte) => out.enqueue(Uint8Array.of(byte))) });

test('a response that is not a stream of this service is passed on unchanged', LIMIT, async (t) => {
  const server = await openServer(t, { headers: { 'content-type': 'application/json' }, send: 0, then: 'end', raw: '{}' });
  assert.match(await told(server), /\{\}$/);
});

test('for the chat, an expired stream is nothing to resume', LIMIT, async (t) => {
  const server = await openServer(t, { status: 410 });
  const { promise, resolve } = Promise.withResolvers?.() ?? deferred();
  const answer = await resumable({ ...FAST, onExpired: resolve })(`${server.api}/tasks/${TASK}/stream`);
  assert.equal(answer.status, 204);
  await promise;
});

test('cancelling the reader closes the connection', LIMIT, async (t) => {
  const server = await openServer(t, { send: 4, then: 'silence' });
  const response = await send(server, { idleMs: 60_000 });
  const reader = response.body.getReader();
  await reader.read();
  await reader.cancel();
  await server.closed();
});

test('an abort before the answer, and while headers are asked for, rejects at once', LIMIT, async (t) => {
  const server = await openServer(t, { lost: true });
  const abort = new AbortController();
  const sent = send(server, { minDelayMs: 60_000, maxDelayMs: 60_000 }, { ...POST, signal: abort.signal });
  await server.asked(1);
  abort.abort();
  await assert.rejects(sent, { name: 'AbortError' });
  const waits = send(server, { headers: () => new Promise(() => {}) }, { ...POST, signal: AbortSignal.timeout(20) });
  await assert.rejects(waits, { name: 'TimeoutError' });
  await assert.rejects(send(server, {}, { ...POST, signal: AbortSignal.abort() }), { name: 'AbortError' });
  assert.equal(server.requests.length, 1);
});

test('an abort ends a body that is not a stream', LIMIT, async (t) => {
  const server = await openServer(t, { headers: { 'content-type': 'application/json' }, send: 0, then: 'silence' });
  const abort = new AbortController();
  const answer = await send(server, {}, { ...POST, signal: abort.signal });
  abort.abort();
  await assert.rejects(answer.text(), { name: 'AbortError' });
});

test('a failed request leaves no listener on its signal', LIMIT, async (t) => {
  const server = await openServer(t, { lost: true });
  const { signal } = new AbortController();
  await assert.rejects(send(server, { attempts: 0 }, { ...POST, signal }), { name: 'ConnectionLost' });
  assert.equal(getEventListeners(signal, 'abort').length, 0);
});

// --- only in a page: the network goes and comes back, and the page becomes visible

const page = new EventTarget();
const looks = Object.assign(new EventTarget(), { visibilityState: 'visible' });
const navigatorOfNode = Object.getOwnPropertyDescriptor(globalThis, 'navigator');

function openPage({ onLine = true } = {}) {
  const network = { onLine };
  Object.defineProperty(globalThis, 'navigator', { configurable: true, value: network });
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  globalThis.document = looks;
  return network;
}

afterEach(() => {
  for (const name of ['addEventListener', 'removeEventListener', 'document', 'navigator']) delete globalThis[name];
  if (navigatorOfNode) Object.defineProperty(globalThis, 'navigator', navigatorOfNode);
});

test('the state reports a loss and its end, once each', LIMIT, async (t) => {
  const server = await openServer(t, { send: 4, then: 'end' }, { lost: true }, { status: 503 }, { send: 4, then: 'end' }, {});
  const states = [];
  await told(server, { state: (state) => states.push(state) });
  assert.deepEqual(states, ['reconnecting', 'live', 'reconnecting', 'live']);
});

test('an error in the page\'s callback is reported and does not break the answer', LIMIT, async (t) => {
  const server = await openServer(t, { send: 4, then: 'end' }, {});
  const errors = [];
  const listeners = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection').on('unhandledRejection', (error) => errors.push(error.message));
  const state = () => {
    throw new Error('mine');
  };
  assert.equal(textIn(await told(server, { state })), TEXT);
  await new Promise(setImmediate);
  process.removeAllListeners('unhandledRejection');
  for (const listener of listeners) process.on('unhandledRejection', listener);
  assert.deepEqual(errors, ['mine', 'mine']);
});

test('while offline it waits for the network and reconnects when the network is back', LIMIT, async (t) => {
  const network = openPage({ onLine: false });
  const server = await openServer(t, { send: 4, then: 'end' }, {});
  const { promise, resolve } = deferred();
  const states = [];
  const state = (now) => (states.push(now), now === 'offline' && resolve());
  const whole = told(server, { state, minDelayMs: 60_000, maxDelayMs: 60_000 });
  await promise;
  network.onLine = true;
  page.dispatchEvent(new Event('online'));
  assert.equal(textIn(await whole), TEXT);
  assert.deepEqual(states, ['offline', 'live']);
});

test('a page that becomes visible ends the pause', LIMIT, async (t) => {
  openPage();
  const server = await openServer(t, { send: 4, then: 'end' }, {});
  const { promise, resolve } = deferred();
  const whole = told(server, { state: resolve, minDelayMs: 60_000, maxDelayMs: 60_000 });
  await promise;
  await new Promise(setImmediate);
  looks.dispatchEvent(new Event('visibilitychange'));
  assert.equal(textIn(await whole), TEXT);
});

test('the online event replaces the connection without waiting for silence', LIMIT, async (t) => {
  openPage();
  const server = await openServer(t, { send: 4, then: 'silence' }, {});
  const response = await send(server, { idleMs: 60_000 });
  const reader = response.body.getReader();
  await reader.read();
  const next = reader.read();
  page.dispatchEvent(new Event('online'));
  assert.equal((await next).done, false);
  await reader.cancel();
  assert.equal(server.requests[1].cursor, idOf(3));
});

function deferred() {
  let resolve;
  const promise = new Promise((done) => (resolve = done));
  return { promise, resolve };
}
