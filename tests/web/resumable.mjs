// Runs chats that use this project's npm package. Reads one JSON job from stdin, {options, chats: [{sdk, base, session,
// headers, text, accept?}]}, sends all messages at once, and writes a JSON array of what each page saw to stdout.
import { text as textOf } from 'node:stream/consumers';
import { resumable } from '../../web/packages/resumable-chat/dist/index.js';
import { loadSdk, openChat } from './lib/chat.mjs';

async function play({ sdk, base, session, headers, text, accept }, options) {
  const requests = [];
  const states = [];
  const counted = async (url, init) => {
    const request = { method: init.method, path: new URL(url).pathname, cursor: init.headers.get('last-event-id') };
    requests.push(request);
    const response = await fetch(url, init);
    request.status = response.status;
    return response;
  };
  const wire = { fetch: resumable({ ...options, accept, fetch: counted, headers: () => headers, state: (state) => states.push(state) }) };
  const { chat, statuses, calls } = openChat(await loadSdk(sdk), { base, session, messages: [], wire });
  await chat.sendMessage({ text });
  return { messages: chat.messages, status: chat.status, error: chat.error?.message, statuses, calls, requests, states };
}

const { chats, options } = JSON.parse(await textOf(process.stdin));
process.stdout.write(JSON.stringify(await Promise.all(chats.map((chat) => play(chat, options)))));
