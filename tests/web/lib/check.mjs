// Checks what a tab saw: the wire format, each chunk by the SDK's schema and by the table in protocol.mjs, the order of
// the chunks, and the messages.
import { Grammar, shapeFaults } from './protocol.mjs';
import { isChunk, isDone } from './wire.mjs';

const HEADERS = {
  'content-type': /^text\/event-stream\b/,
  'cache-control': /no-cache/,
  'x-accel-buffering': /^no$/,
  'x-vercel-ai-ui-message-stream': /^v1$/,
};
const OPEN_STATES = ['streaming', 'input-streaming', 'input-available'];

/** Returns all faults of one tab as sentences. */
export async function faultsOf(ai, tab) {
  const faults = [];
  for (const [index, leg] of tab.wire.legs.entries()) {
    faults.push(...(await legFaults(ai, leg, tab.accept)).map((fault) => `leg ${index}: ${fault}`));
  }
  if (faults.length === 0) faults.push(...assemblyFaults(tab));
  return [...faults, ...clientFaults(tab), ...(await messageFaults(ai, tab))];
}

export const chunksOf = (leg) => leg.requests.flatMap((request) => request.frames.filter(isChunk).map((frame) => JSON.parse(frame.data)));

async function legFaults(ai, leg, accept) {
  const streams = leg.requests.filter((request) => request.status === 200);
  if (streams.length === 0) return [];
  const faults = [...streams.flatMap(wireFaults), ...cursorFaults(streams)];
  const unreadable = await schemaFaults(ai, streams);
  if (unreadable.length > 0) return [...faults, ...unreadable];
  const grammar = new Grammar({
    continues: accept.some((word) => ['tool-approval-request', 'page-tools'].includes(word)),
    pageTools: accept.includes('page-tools'),
  });
  for (const chunk of chunksOf(leg)) {
    faults.push(...shapeFaults(chunk, accept));
    grammar.read(chunk);
  }
  if (!leg.stopped) {
    grammar.end();
    if (leg.requests.at(-1).status !== 204 && !isDone(streams.at(-1))) faults.push('the stream ended without [DONE]');
  }
  return [...faults, ...grammar.faults];
}

function wireFaults(request) {
  const faults = [];
  for (const [name, wanted] of Object.entries(HEADERS)) {
    if (!wanted.test(request.headers[name] ?? '')) faults.push(`header ${name} is ${request.headers[name]}`);
  }
  const { frames } = request;
  if (frames.length > 0 && frames[0].comment === undefined) faults.push('the first frame is not a comment');
  if (frames.some((frame) => frame.event !== undefined)) faults.push('a named event');
  if (frames.some((frame) => frame.data === undefined && frame.id !== undefined)) faults.push('an id without data');
  if (frames.some((frame) => /[^\n\x20-\x7e]/.test(frame.raw))) faults.push('bytes that are not printable ASCII');
  const end = frames.findIndex((frame) => frame.data === '[DONE]');
  if (end >= 0 && frames.slice(end + 1).some((frame) => frame.data !== undefined)) faults.push('data after [DONE]');
  if (request.end === 'eof' && request.rest) faults.push('the stream ended inside an event');
  return faults;
}

/** Checks that ids rise over all the responses of one fetch, because a repeated id is a chunk that is shown twice. */
function cursorFaults(streams) {
  const faults = [];
  let last = [-1n, -1n];
  for (const { id } of streams.flatMap((request) => request.frames).filter((frame) => frame.id !== undefined)) {
    if (!/^\d{1,19}-\d{1,19}$/.test(id)) {
      faults.push(`id ${id}`);
      continue;
    }
    const next = id.split('-').map(BigInt);
    if (next[0] < last[0] || (next[0] === last[0] && next[1] <= last[1])) faults.push(`id ${id} after ${last.join('-')}`);
    last = next;
  }
  return faults;
}

async function schemaFaults(ai, streams) {
  const text = streams.flatMap((request) => request.frames.map((frame) => frame.raw)).join('');
  const stream = new Response(text).body;
  const faults = [];
  let index = 0;
  for await (const result of ai.parseJsonEventStream({ stream, schema: ai.uiMessageChunkSchema })) {
    if (!result.success) faults.push(`chunk ${index}: refused by the SDK: ${brief(result)}`);
    index++;
  }
  return faults;
}

const brief = (result) => `${JSON.stringify(result.rawValue)?.slice(0, 200)} ${result.error.name}`;

function clientFaults({ chat, calls, sends, wire, accept }) {
  const faults = [];
  const failed = wire.legs.some((leg) => leg.requests.some((request) => request.status >= 400) || errorOf(leg) !== undefined);
  if (chat.status !== 'ready' && !failed) faults.push(`the chat ends in status ${chat.status}: ${chat.error}`);
  const asked = accept.includes('page-tools') ? [] : calls.filter(({ call }) => call === 'onToolCall');
  for (const { tool } of asked) faults.push(`the client was asked to run ${tool}`);
  const posts = wire.legs.filter((leg) => leg.requests[0]?.method === 'POST').length;
  if (posts !== sends) faults.push(`${posts} posts for ${sends} sent messages`);
  return faults;
}

const errorOf = (leg) => leg.requests.flatMap((request) => request.frames).find((frame) => frame.data?.startsWith('{"type":"error"'));

async function messageFaults(ai, { chat, wire }) {
  const { messages } = chat;
  const faults = [];
  const ids = messages.map((message) => message.id);
  for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) faults.push(`two messages ${id}`);
  if (wire.legs.at(-1)?.stopped) return faults; // the messages of a page that was left may be incomplete
  if (messages.length > 0) {
    const checked = await ai.safeValidateUIMessages({ messages });
    if (!checked.success) faults.push(`messages refused by the SDK: ${checked.error.message.slice(0, 300)}`);
  }
  for (const part of messages.flatMap((message) => message.parts)) {
    if (OPEN_STATES.includes(part.state) || part.preliminary) faults.push(`a ${part.type} part left ${part.state}`);
  }
  return faults;
}

/** Checks that the last message has the id and exactly the text of the last stream. */
function assemblyFaults({ chat, wire }) {
  const leg = wire.legs.at(-1);
  if (leg === undefined || leg.stopped || leg.requests[0]?.status !== 200) return [];
  const chunks = chunksOf(leg);
  const message = chat.messages.at(-1);
  const faults = [];
  const id = chunks.find((chunk) => chunk.type === 'start')?.messageId;
  if (message?.id !== id) faults.push(`the last message is ${message?.id}, the stream named ${id}`);
  const shown = message?.parts.filter((part) => part.type === 'text').map((part) => part.text).join('');
  const sent = textOf(chunks);
  if (shown !== sent) faults.push(`the client shows ${shown?.length} characters, the stream has ${sent.length}`);
  return faults;
}

export function textOf(chunks) {
  const steps = [''];
  for (const chunk of chunks) {
    if (chunk.type === 'start-step') steps.push('');
    else if (chunk.type === 'reset-step') steps[steps.length - 1] = '';
    else if (chunk.type === 'text-delta') steps[steps.length - 1] += chunk.delta;
  }
  return steps.join('');
}
