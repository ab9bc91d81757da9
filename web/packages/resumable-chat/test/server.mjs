// A real HTTP server that answers like the service and misbehaves as a script says.
import { once } from 'node:events';
import { createServer } from 'node:http';

export const TASK = 'task-1';
const CHUNKS = 24;

/** An answer of the words `0:0;`, `0:1;` ..., with a cursor on every event. A gap or a repetition shows in the text. */
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
 * Opens a server that is closed when the test `t` ends. `script` has one step for each request, in order; the last step
 * also serves all later requests. A step is one of
 *   {status, headers?, body?}            sends this response
 *   {lost: true}                         accepts the request and resets the connection without an answer
 *   {hang: true}                         accepts the request and sends nothing
 *   {send, then, back?, ids?}            sends `send` events after the cursor, and then: 'reset', 'end' (clean, no [DONE]),
 *                                        'half' (cut within an event), 'silence' or 'done'; `back`: starts that many events
 *                                        earlier; ids: false sends events without cursors
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
  if (then === 'reset' || then === 'half') setTimeout(() => response.socket.resetAndDestroy(), 20) // a reset discards what was not read yet;
}
