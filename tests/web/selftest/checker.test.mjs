// Proves that the checker passes a good stream and finds each kind of fault, with every SDK version.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VERSIONS } from '../lib/chat.mjs';
import { playStory } from '../lib/story.mjs';
import { framesOf, goodText, goodTurn, serve } from './fake_api.mjs';

const SEND = [{ act: 'open', tab: 'a' }, { act: 'send', tab: 'a', text: 'hello' }];

async function play(sdk, server, acts = SEND, options = {}) {
  const api = await serve(server);
  try {
    return await playStory({ sdk, base: api.base, session: 'session-of-the-selftest', acts, limit_ms: 5000, ...options });
  } finally {
    await api.close();
  }
}

const textOfTab = (tab) => tab.messages.at(-1).parts.filter((part) => part.type === 'text').map((part) => part.text).join('');

/** Returns the good turn's frames, after applying `change` to its chunks. */
const spoilt = (change) => {
  const chunks = goodTurn();
  return framesOf(change(chunks) ?? chunks);
};
const at = (chunks, type, n = 0) => chunks.map((chunk, i) => [chunk, i]).filter(([chunk]) => chunk.type === type)[n][1];
const without = (type) => (chunks) => chunks.filter((chunk) => chunk.type !== type);
const withKey = (type, key, value) => (chunks) => void (chunks[at(chunks, type)][key] = value);

const FAULTY = {
  'the same event twice': [(() => { const frames = framesOf(goodTurn()); frames.splice(16, 0, frames[15]); return frames; })(), /id 1001-\d+ after/],
  'a text part twice': [spoilt((c) => void c.splice(at(c, 'text-end') + 1, 0, ...c.slice(at(c, 'text-start'), at(c, 'text-end') + 1))), /was there already/],
  'a missing finish': [spoilt(without('finish')), /without finish/],
  'a missing [DONE]': [framesOf(goodTurn()).slice(0, -1), /without \[DONE\]/],
  'data after [DONE]': [[...framesOf(goodTurn()), 'data: {"type":"finish"}\n\n'], /data after \[DONE\]/],
  'a cut inside an event': [[...framesOf(goodTurn()).slice(0, 8), 'id: 1001-9\ndata: {"type":'], /inside an event/],
  'an unknown key': [spoilt(withKey('text-delta', 'ts', 1)), /unknown key ts|refused by the SDK/],
  'a key of newer clients': [spoilt(withKey('tool-input-start', 'title', 'Search')), /unknown key title|refused by the SDK/],
  'an unknown type': [spoilt((c) => void c.splice(3, 0, { type: 'thought' })), /refused by the SDK/],
  'a null': [spoilt(withKey('finish', 'messageMetadata', null)), /messageMetadata is null/],
  'a finish reason with an underscore': [spoilt(withKey('finish', 'finishReason', 'tool_calls')), /finishReason|refused by the SDK/],
  'a delta before its start': [spoilt((c) => void c.splice(at(c, 'text-start'), 2, c[at(c, 'text-start') + 1], c[at(c, 'text-start')])), /not started/],
  'a text left open at the end of its step': [spoilt(without('text-end')), /finish-step with text t1 open/],
  'a tool call without a result': [spoilt(without('tool-output-error')), /tool call a called/],
  'a result without a call': [spoilt((c) => c.filter((x) => !(x.toolCallId === 'b' && x.type.startsWith('tool-input')))), /not there/],
  'a call that the client should run': [spoilt((c) => c.map(({ providerExecuted: _, ...x }) => x)), /asked to run search_docs/],
  'a second start with another id': [spoilt((c) => void c.splice(13, 0, { type: 'start', messageId: 'msg_2' })), /second start/],
  'a second message in one stream': [framesOf([...goodTurn(), ...goodTurn().map((c) => (c.type === 'start' ? { ...c, messageId: 'msg_2' } : c))]), /after finish/],
  'text outside a step': [spoilt((c) => void c.splice(at(c, 'start-step', 1), 1)), /outside a step/],
  'a named event': [framesOf(goodTurn()).with(3, 'event: message\n' + framesOf(goodTurn())[3]), /named event/],
  'bytes beyond ASCII': [framesOf(goodTurn()).with(16, 'id: 1001-18\ndata: {"type":"text-delta","id":"t1","delta":"é"}\n\n'), /not printable ASCII/],
  'bad JSON': [framesOf(goodTurn()).with(3, 'id: 1001-5\ndata: {"type":NaN}\n\n'), /refused by the SDK/],
  'reset-step unasked for': [spoilt((c) => void c.splice(at(c, 'text-end'), 0, { type: 'reset-step' })), /reset-step/],
};

for (const sdk of VERSIONS) {
  test(`ai ${sdk}: a good stream has no fault`, async () => {
    const { faults, tabs } = await play(sdk, { frames: framesOf(goodTurn()) });
    assert.deepEqual(faults, []);
    assert.equal(textOfTab(tabs.a), goodText);
    assert.deepEqual(tabs.a.statuses, ['submitted', 'streaming', 'ready']);
  });

  for (const [fault, [frames, found]] of Object.entries(FAULTY)) {
    test(`ai ${sdk}: ${fault} is found`, async () => {
      const { faults } = await play(sdk, { frames });
      assert.match(faults.join('\n'), found);
    });
  }

  test(`ai ${sdk}: a cut after every single event is invisible`, async () => {
    const frames = framesOf(goodTurn());
    for (let n = 0; n < frames.length; n++) {
      const { faults, tabs } = await play(sdk, { frames }, [{ act: 'open', tab: 'a', cuts: [n] }, SEND[1]]);
      assert.deepEqual(faults, [], `cut after ${n}`);
      assert.equal(textOfTab(tabs.a), goodText);
      assert.equal(tabs.a.legs[0].requests.length, 2);
    }
  });

  test(`ai ${sdk}: a server that ignores the cursor is found`, async () => {
    const { faults } = await play(sdk, { frames: framesOf(goodTurn()).map((f) => f.replace('id: 1001', 'id:  1001')) }, [{ act: 'open', tab: 'a', cuts: [6] }, SEND[1]]);
    assert.match(faults.join('\n'), /id 1001-2 after|second start/);
  });

  test(`ai ${sdk}: a reload onto a half message in the history is found`, async () => {
    const history = [{ id: 'msg_0', role: 'assistant', parts: [{ type: 'text', text: 'Caf', state: 'done' }] }];
    const acts = [{ act: 'open', tab: 'a' }, { act: 'send', tab: 'a', text: 'x', wait: false }, { act: 'received', tab: 'a', events: 5 }, { act: 'stop', tab: 'a' },
      { act: 'open', tab: 'b', hydrate: true }, { act: 'resume', tab: 'b' }];
    const good = await play(sdk, { frames: framesOf(goodTurn()), delay: 2 }, acts);
    assert.deepEqual(good.faults, []);
    const bad = await play(sdk, { frames: framesOf(goodTurn()), delay: 2, history: [{ ...history[0], id: 'msg_1' }] }, acts);
    if (sdk === '5.0.200') assert.match(bad.faults.join('\n'), /the client shows/); // newer clients replace the message
  });

  test(`ai ${sdk}: a stream that never ends is a fault, not a hang`, async () => {
    const { faults } = await play(sdk, { frames: framesOf(goodTurn()), delay: 500 }, SEND, { limit_ms: 300 });
    assert.match(faults.join('\n'), /longer than 300 ms/);
  });
}
