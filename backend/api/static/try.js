// A form that posts a message and shows the stream; after a reload it attaches to the answer that runs.
"use strict";
const api = "/api/chat";
const byId = (id) => document.getElementById(id);
const [form, message, conversation, statusLine, cancel] =
  ["form", "message", "conversation", "status", "cancel"].map(byId);
let session = sessionStorage.getItem("session") || newSession();

function newSession() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const id = "try-" + Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem("session", id);
  return id;
}

function show(role, text) {
  const block = document.createElement("div");
  block.className = role;
  block.textContent = text;
  conversation.append(block);
  return block;
}

function problem(text) {
  show("error", text);
  statusLine.textContent = "";
}

async function failed(answer) {
  const document = await answer.json().catch(() => ({}));
  problem(document.detail || `The server said ${answer.status}.`);
}

// Reads one stream; comes back with the last id when the connection breaks before [DONE].
async function follow(answer, state) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return false;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const fields = Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.data === "[DONE]") return true;
      if (fields.data) take(JSON.parse(fields.data), state);
      if (fields.id) state.cursor = fields.id;
    }
  }
}

function take(chunk, state) {
  if (chunk.type === "start" || !state.block) state.block = show("assistant", "");
  if (chunk.type === "text-delta" || chunk.type === "reasoning-delta") state.block.textContent += chunk.delta;
  else if (chunk.type === "tool-input-available") state.block.textContent += `\n[${chunk.toolName} ${JSON.stringify(chunk.input)}]\n`;
  else if (chunk.type === "tool-output-available") state.block.textContent += `[${JSON.stringify(chunk.output)}]\n`;
  else if (chunk.type === "error") problem(chunk.errorText);
  else if (chunk.type === "finish") statusLine.textContent = chunk.messageMetadata?.status || "completed";
}

async function readToTheEnd(answer) {
  const state = { cursor: null, block: null };
  cancel.disabled = false;
  for (let pause = 250; ; pause = Math.min(pause * 2, 8000)) {
    if (answer && [204, 410].includes(answer.status)) return restore(); // it ended meanwhile: the conversation has it
    if (answer && !answer.ok) { await failed(answer); break; }
    const before = state.cursor;
    try {
      if (answer && await follow(answer, state)) break;
    } catch { /* the connection broke: go on from the cursor */ }
    if (state.cursor !== before) pause = 250;
    statusLine.textContent = "reconnecting";
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (!state.cursor && state.block) state.block.remove();
    const headers = state.cursor ? { "last-event-id": state.cursor } : {};
    answer = await fetch(`${api}/${session}/stream`, { headers }).catch(() => null);
    if (answer && answer.ok) statusLine.textContent = "streaming";
  }
  cancel.disabled = true;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  show("user", message.value);
  statusLine.textContent = "waiting";
  const id = "m-" + crypto.getRandomValues(new Uint32Array(3)).join("-");
  const body = { id: session, trigger: "submit-message", messages: [{ id, role: "user", parts: [{ type: "text", text: message.value }] }] };
  const answer = await fetch(api, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  }).catch(() => null);
  if (!answer) return problem("The server cannot be reached.");
  if (!answer.ok) return failed(answer);
  statusLine.textContent = "streaming";
  await readToTheEnd(answer);
});

cancel.addEventListener("click", () => fetch(`${api}/sessions/${session}/cancel`, { method: "POST" }));
byId("fresh").addEventListener("click", () => {
  session = newSession();
  conversation.replaceChildren();
  describe();
});

function describe() {
  byId("shell").textContent =
    `curl -N ${location.origin}${api} -H 'content-type: application/json' \\\n` +
    `  -d '{"id":"${session}","messages":[{"id":"m1","role":"user","parts":[{"type":"text","text":"Hello"}]}]}'`;
}

async function restore() {
  describe();
  cancel.disabled = true;
  statusLine.textContent = "";
  const answer = await fetch(`${api}/sessions/${session}?format=ui`).catch(() => null);
  if (!answer || !answer.ok) return;
  const known = await answer.json();
  conversation.replaceChildren();
  for (const one of known.messages) {
    show(one.role, one.parts.map((part) => part.text ?? (part.toolName ? `[${part.toolName}]` : "")).join(""));
  }
  if (!known.active_stream) return;
  statusLine.textContent = "streaming";
  await readToTheEnd(await fetch(`${api}/tasks/${known.active_stream.task_id}/stream`).catch(() => null));
}

restore();
