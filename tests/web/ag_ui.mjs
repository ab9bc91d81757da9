// Plays acts with the agent of docs/clients.md and the real @ag-ui/client. Reads one JSON job from stdin,
// {url, threadId, headers, recipe, acts: [{act: "run", id, text, cut?} | {act: "connect"}]}, and writes what the agent saw
// after each act to stdout. `cut` breaks the first connection of the run after so many bytes.
import { text as textOf } from 'node:stream/consumers';

const { url, threadId, headers, recipe, acts } = JSON.parse(await textOf(process.stdin));
const { Thread } = await import(recipe);

async function* upTo(body, bytes) {
  for await (const piece of body) {
    yield piece.subarray(0, bytes);
    bytes -= piece.length;
    if (bytes <= 0) throw new TypeError('terminated');
  }
}

async function play({ act, id, text, cut }, messages) {
  const requests = [];
  const events = [];
  const counted = async (to, init) => {
    const response = await fetch(to, init);
    requests.push({ method: init.method ?? 'GET', cursor: init.headers['last-event-id'] ?? null, status: response.status });
    if (cut === undefined || requests.length > 1) return response;
    return new Response(ReadableStream.from(upTo(response.body, cut)), response);
  };
  const agent = new Thread({ url, threadId, headers, fetch: counted, initialMessages: messages });
  const subscriber = { onEvent: ({ event }) => void events.push(event) };
  let failure = null;
  try {
    if (act === 'connect') {
      await agent.connectAgent({}, subscriber);
    } else {
      agent.addMessage({ id, role: 'user', content: text });
      await agent.runAgent({ runId: `run-${id}` }, subscriber);
    }
  } catch (error) {
    failure = String(error);
  }
  return { events, requests, failure, messages: agent.messages };
}

const results = [];
for (const act of acts) results.push(await play(act, act.act === 'connect' ? [] : results.at(-1)?.messages ?? []));
process.stdout.write(JSON.stringify(results));
