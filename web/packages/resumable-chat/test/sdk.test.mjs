// Runs each AI SDK over each kind of connection loss: the text is exact and appears once, and the chat sees no error.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { loadSdk, openChat, VERSIONS } from '../../../../tests/web/lib/chat.mjs';
import { resumable } from '../dist/index.js';
import { idOf, openServer, TASK, TEXT } from './server.mjs';
import { FAST, LIMIT } from './timings.mjs';

const SESSION = 'session-0123456789abcdef';
const textOf = (message) => message.parts.filter((part) => part.type === 'text').map((part) => part.text).join('');

async function openTab(sdk, server, options = {}) {
  const wire = { fetch: resumable({ ...FAST, ...options }) };
  return openChat(await loadSdk(sdk), { base: server.base, session: SESSION, messages: [], wire });
}

function assertWhole({ chat, statuses, calls }) {
  assert.equal(chat.error, undefined);
  assert.deepEqual(statuses, ['submitted', 'streaming', 'ready']);
  assert.deepEqual(chat.messages.map((message) => message.role), ['user', 'assistant']);
  assert.equal(chat.messages[1].id, 'msg_1');
  assert.equal(textOf(chat.messages[1]), TEXT);
  assert.deepEqual(calls.filter(({ call }) => call === 'onError'), []);
}

const LOSSES = {
  'a reset': [{ send: 5, then: 'reset' }, { send: 7, then: 'reset' }, {}],
  'a clean early end': [{ send: 5, then: 'end' }, { send: 7, then: 'end' }, {}],
  'a cut in mid-event': [{ send: 5, then: 'half' }, { send: 7, then: 'half' }, {}],
  'silence': [{ send: 5, then: 'silence' }, { send: 7, then: 'silence' }, {}],
  'one after another': [{ send: 0, then: 'reset' }, { send: 1, then: 'end' }, { send: 2, then: 'half' }, { status: 502 }, { lost: true }, { send: 3, then: 'silence' }, {}],
  'events that come again': [{ send: 9, then: 'reset' }, { back: 4, send: 8, then: 'end' }, { back: 9 }],
  'an end without [DONE]': [{ then: 'end' }, { status: 204 }],
  'an answer that was never received': [{ lost: true }, { status: 503 }, { send: 5, then: 'end' }, {}],
};

for (const sdk of VERSIONS) {
  describe(`ai ${sdk}`, { concurrency: true }, () => {
    for (const [name, script] of Object.entries(LOSSES)) {
      test(name, LIMIT, async (t) => {
        const server = await openServer(t, ...script);
        const tab = await openTab(sdk, server);
        await tab.chat.sendMessage({ text: 'count' });
        assertWhole(tab);
        const answered = server.requests.findIndex((_, at) => script[Math.min(at, script.length - 1)].send !== undefined || at === script.length - 1);
        const posts = server.requests.filter(({ method }) => method === 'POST');
        if (name !== 'an answer that was never received') assert.equal(posts.length, 1);
        for (const { url, method } of server.requests.slice(answered + 1)) {
          assert.deepEqual({ url, method }, { url: `/api/chat/tasks/${TASK}/stream`, method: 'GET' });
        }
      });
    }

    test("an expired stream calls onExpired and is not an error", LIMIT, async (t) => {
      const server = await openServer(t, { send: 6, then: 'reset' }, { status: 410 });
      const expired = [];
      const tab = await openTab(sdk, server, { onExpired: (what) => expired.push(what) });
      await tab.chat.sendMessage({ text: 'count' });
      assert.equal(tab.chat.status, 'ready');
      assert.deepEqual(expired, [{ taskId: TASK }]);
      assert.equal(server.requests.at(-1).cursor, idOf(5));
    });

    test('without onExpired an expired stream is an error, because half an answer would look complete', LIMIT, async (t) => {
      const server = await openServer(t, { send: 6, then: 'reset' }, { status: 410 });
      const tab = await openTab(sdk, server);
      await tab.chat.sendMessage({ text: 'count' });
      assert.equal(tab.chat.status, 'error');
      assert.match(tab.chat.error.message, /expired/);
    });

    test('a stream that useChat has resumed survives a loss', LIMIT, async (t) => {
      const server = await openServer(t, { send: 10, then: 'half' }, {});
      const tab = await openTab(sdk, server);
      await tab.chat.resumeStream();
      assert.equal(textOf(tab.chat.messages.at(-1)), TEXT);
      assert.deepEqual(server.requests.map(({ url }) => url), [`/api/chat/${SESSION}/stream`, `/api/chat/tasks/${TASK}/stream`]);
      assert.equal(tab.chat.status, 'ready');
    });

    for (const [phase, script] of Object.entries({ reading: [{ send: 6, then: 'silence' }], pausing: [{ send: 6, then: 'end' }, { status: 503, headers: { 'retry-after': '60' } }] })) {
      test(`stop() while ${phase} ends everything at once and makes no more requests`, LIMIT, async (t) => {
        const server = await openServer(t, ...script);
        const tab = await openTab(sdk, server, { idleMs: 60_000 });
        const sent = tab.chat.sendMessage({ text: 'count' });
        await server.asked(script.length);
        while (tab.chat.messages.length < 2 || textOf(tab.chat.messages[1]) !== '0:0;0:1;0:2;') await new Promise(setImmediate);
        await tab.chat.stop();
        await sent;
        const asked = server.requests.length;
        await server.closed();
        assert.equal(tab.chat.status, 'ready');
        assert.equal(tab.chat.error, undefined);
        assert.equal(server.requests.length, asked);
      });
    }
  });
}
