// A small fake of the API that serves one session's stream from a list of frames, correct ones or wrong ones.
import { createServer } from 'node:http';

const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache',
  'x-accel-buffering': 'no',
  'x-vercel-ai-ui-message-stream': 'v1',
  'x-resumable-stream-id': 'task-1',
};
const BY_SERVER = { providerExecuted: true, dynamic: true };

/** Returns the chunks of a correct turn of two steps: reasoning and two tool calls, then text. */
export function goodTurn() {
  return [
    { type: 'start', messageId: 'msg_1' },
    { type: 'start-step' },
    { type: 'reasoning-start', id: 'r1' },
    { type: 'reasoning-delta', id: 'r1', delta: 'thinking' },
    { type: 'reasoning-end', id: 'r1' },
    ...['a', 'b'].flatMap((call) => [
      { type: 'tool-input-start', toolCallId: call, toolName: 'search_docs', ...BY_SERVER },
      { type: 'tool-input-delta', toolCallId: call, inputTextDelta: '{"query":"x"}' },
      { type: 'tool-input-available', toolCallId: call, toolName: 'search_docs', input: { query: 'x' }, ...BY_SERVER },
    ]),
    { type: 'tool-output-available', toolCallId: 'b', output: { type: 'no_results', message: 'none' }, ...BY_SERVER },
    { type: 'tool-output-error', toolCallId: 'a', errorText: 'gone', ...BY_SERVER },
    { type: 'finish-step' },
    { type: 'start-step' },
    { type: 'text-start', id: 't1' },
    ...['Caf\u00e9 ', 'a\u2028b ', '\ud83d\ude42 ', 'data: x\n\n'].map((delta) => ({ type: 'text-delta', id: 't1', delta })),
    { type: 'text-end', id: 't1' },
    { type: 'data-title', data: { title: 'T' }, transient: true },
    { type: 'finish-step' },
    { type: 'finish', finishReason: 'stop', messageMetadata: { status: 'completed' } },
  ];
}

export const goodText = 'Caf\u00e9 a\u2028b \ud83d\ude42 data: x\n\n';

const ascii = (value) => JSON.stringify(value).replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** Returns the frames of the turn as the server should send them. */
export const framesOf = (chunks) => [...chunks.map((chunk, i) => `id: 1001-${i + 2}\ndata: ${ascii(chunk)}\n\n`), 'data: [DONE]\n\n'];

/**
 * Serves `frames` at every stream path, from behind the cursor if there is one, with `delay` ms between them. `history`
 * is the session's history.
 */
export async function serve({ frames, delay = 0, history = [], headers = {} }) {
  let running = false;
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://fake');
    if (url.searchParams.get('format') === 'ui') return json(response, { messages: history });
    if (url.pathname.endsWith('/cancel')) return json(response, { cancelled: running });
    if (request.method === 'GET' && !running) return response.writeHead(204).end();
    running = true;
    const seen = request.headers['last-event-id'];
    const from = seen === undefined ? 0 : frames.findIndex((frame) => frame.startsWith(`id: ${seen}\n`)) + 1;
    if (from === frames.length - 1 && seen !== undefined) return response.writeHead(204).end();
    response.writeHead(200, { ...HEADERS, ...headers });
    response.write(': stream-open\n\n');
    for (const frame of frames.slice(from)) {
      if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
      if (response.destroyed) return undefined;
      response.write(frame);
    }
    return response.end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { base: `http://127.0.0.1:${server.address().port}`, close: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }) };
}

const json = (response, body) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
