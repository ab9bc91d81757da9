// A real HTTP server that answers as the service does, and misbehaves as it is told.
import { once } from 'node:events';
import { createServer } from 'node:http';

export const TASK = 'task-1';
const CHUNKS = 24;

/** An answer of words `0:0;`, `0:1;` ... with a cursor on every event: a gap or a repeat shows in the text itself. */
export const ANSWER = [
  { type: 'start', messageId: 'msg_1' },
  { type: 'start-step' },
  { type: 'text-start', id: 't' },
  ...Array.from({ length: CHUNKS }, (_, n) => ({ type: 'text-delta', id: 't', delta: `0:${n};` })),
  { type: 'text-end', id: 't' },
  { type: 'finish-step' },
  { type: 'finish', finishReason: 'stop' },
];
export const TEXT = ANSWER.map((chunk) => chunk.delta ?? '').join('');
export const idOf = (index) => `7001-${index + 1}`;
const framed = (index) => `id: ${idOf(index)}\ndata: ${JSON.stringify(ANSWER[index])}\n\n`;

/**
 * Closed when the test `t` has ended. `script`: what becomes of each request, in order; the last one goes for all that follow. One of
 *   {status, headers?, body?}            that answer
 *   {lost: true}                         the request is taken, and its connection reset without an answer
 *   {hang: true}                         the request is taken, and nothing is said
 *   {send, then, back?, ids?}            so many events behind the cursor, and then: 'reset', 'end' (clean, no [DONE]),
 *                                        'half' (in mid-event), 'silence', 'done'; `back`: that many events earlier than
 *                                        asked for; ids: false for events without cursors
 */
export async function openServer(t, ...script) {
  const requests = [];
  const waiting = [];
  const open = new Set();
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { method, url, headers } = request;
    const step = script.length > 1 ? script.shift() : script[0];
    requests.push({ method, url, headers, body: Buffer.concat(chunks).toString(), cursor: headers['last-event-id'], at: performance.now() });
    for (const { count, resolve } of waiting) if (requests.length >= count) resolve();
    open.add(response.on('close', () => open.delete(response)));
    answer(response, headers['last-event-id'], step);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const base = `http://127.0.0.1:${server.address().port}`;
  return {
    base,
    api: `${base}/api/chat`,
    requests,
    asked: (count) => (requests.length >= count ? Promise.resolve() : new Promise((resolve) => waiting.push({ count, resolve }))),
    closed: () => (open.size === 0 ? Promise.resolve() : Promise.all([...open].map((response) => once(response, 'close')))),
  };
}

function answer(response, cursor, { status = 200, headers = {}, body = '', lost, hang, ...stream }) {
  if (hang) return;
  if (lost) return response.socket.resetAndDestroy();
  if (status !== 200) return response.writeHead(status, headers).end(body);
  const { send = ANSWER.length, then = 'done', back = 0, ids = true, raw } = stream;
  response.writeHead(200, { 'content-type': 'text/event-stream', 'x-resumable-stream-id': TASK, ...headers });
  response.write(': stream-open\n\n');
  const from = cursor === undefined ? 0 : Math.max(0, Number(cursor.split('-')[1]) - back);
  const until = Math.min(from + send, ANSWER.length);
  for (let index = from; index < until; index++) response.write(ids ? framed(index) : framed(index).replace(/^id.*\n/, ''));
  if (raw) response.write(raw);
  if (then === 'half') response.write(framed(Math.min(until, ANSWER.length - 1)).slice(0, -9));
  if (then === 'done') response.end('data: [DONE]\n\n');
  if (then === 'end') response.end();
  if (then === 'reset' || then === 'half') setTimeout(() => response.socket.resetAndDestroy(), 20) // a reset overtakes what was not read yet;
}
