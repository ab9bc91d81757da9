// A form that posts messages and shows their answers. The server stores the sessions. After a reload, or the browser's
// Back, the page reads the conversation again and resumes the running and waiting answers.
"use strict";
const api = "/api/chat";
const byId = (id) => document.getElementById(id);
const [form, message, conversation, statusLine, cancel] =
  ["form", "message", "conversation", "status", "cancel"].map(byId);
let view; // the session on the page: its id, its unfinished turns in order, and a controller that aborts its requests

const randomHex = (bytes) =>
  Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, "0")).join("");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// --- the page

function add(parent, kind, text = "", tag = "div") {
  const box = document.createElement(tag);
  box.className = kind;
  box.textContent = text;
  parent.append(box);
  return box;
}

// Returns the box of one part of an answer. Creates it when the part is new.
function partBox(turn, key, kind, tag) {
  const known = turn.answer.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (known) return known;
  const box = add(turn.step ?? turn.answer, kind, "", tag);
  box.dataset.key = key;
  return box;
}

function showTool(turn, part) {
  const known = Object.assign((turn.tools[part.toolCallId] ??= {}), part);
  const box = partBox(turn, "tool " + part.toolCallId, "tool", "details");
  const input = known.input === undefined ? "" : JSON.stringify(known.input);
  const result = known.errorText ?? known.output?.message ?? ("output" in known ? "done" : "…");
  box.replaceChildren();
  const summary = add(box, "", "", "summary");
  add(summary, "", `${known.toolName ?? "tool"} ${input.length > 200 ? input.slice(0, 200) + "…" : input}`, "code");
  summary.append(` → ${result}`);
  add(box, "", JSON.stringify(known.output ?? known.input ?? null, null, 2), "pre");
}

function showError(turn, text) {
  turn.step = null;
  partBox(turn, "error", "error").textContent = text;
}

// Adds a turn to the page: the user's message, if there is one, and a box for the answer below it.
function addTurn(text) {
  if (text !== null) add(conversation, "user", text);
  const box = add(conversation, "assistant");
  const answer = add(box, "answer");
  return { view, answer, note: add(box, "note"), step: null, tools: {}, cursor: null, task: null, status: "" };
}

function mark(turn, status) {
  turn.status = status;
  turn.note.textContent = status === "completed" ? "" : status;
  showStatus(status);
}

function showStatus(otherwise) {
  const [first, ...later] = view.turns;
  cancel.disabled = !first?.task;
  statusLine.textContent = first ? first.status + (later.length ? `, ${later.length} more waiting` : "") : otherwise;
}

// --- streams

function take(turn, chunk) {
  if (chunk.type === "finish") turn.outcome = chunk.messageMetadata?.status ?? "completed";
  else if (turn.status !== "streaming") mark(turn, "streaming");
  if (chunk.type === "start") turn.answer.replaceChildren();
  else if (chunk.type === "start-step") turn.step = add(turn.answer, "step");
  else if (chunk.type === "reset-step") turn.step?.replaceChildren(); // a new attempt writes the step again
  else if (chunk.type === "finish-step") turn.step = null;
  else if (chunk.type === "text-delta") partBox(turn, "text " + chunk.id, "text").append(chunk.delta);
  else if (chunk.type === "reasoning-delta") partBox(turn, "reasoning " + chunk.id, "reasoning").append(chunk.delta);
  else if (chunk.type.startsWith("tool-")) showTool(turn, chunk);
  else if (chunk.type === "data-error") showError(turn, chunk.data.message);
  else if (chunk.type === "error") showError(turn, chunk.errorText);
}

// Reads one response. Returns true at [DONE], and false if the connection ended before it.
async function read(turn, answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done || turn.view !== view) return false;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const fields = Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.data === "[DONE]") return true;
      if (fields.data) take(turn, JSON.parse(fields.data));
      if (fields.id) turn.cursor = fields.id;
    }
  }
}

// --- requests

// Repeats a request until the server answers. A repeated message keeps its id, so it is answered once.
async function request(here, path, options, onRetry) {
  const { signal } = here.closing;
  for (let pause = 250; ; pause = Math.min(pause * 2, 4000)) {
    signal.throwIfAborted();
    const answer = await fetch(api + path, { ...options, signal }).catch(() => null);
    signal.throwIfAborted();
    if (answer && ![502, 503, 504].includes(answer.status)) return answer;
    onRetry();
    await sleep(pause);
  }
}

const send = (turn) =>
  request(turn.view, "?accept=reset-step", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ id: turn.view.session, trigger: "submit-message", messages: [turn.message] }),
  }, () => mark(turn, "waiting for the server"));

const attach = (turn) =>
  request(turn.view, `/tasks/${turn.task}/stream?accept=reset-step`, {
    headers: turn.cursor ? { "last-event-id": turn.cursor } : {},
  }, () => mark(turn, "reconnecting"));

const detail = async (answer) =>
  (await answer.json().catch(() => ({}))).detail ?? `The server answered with status ${answer.status}.`;

// Follows one turn to its end. A waiting turn keeps no connection open, because a browser allows six per server.
async function follow(turn, ahead) {
  if (turn.task) await ahead;
  for (;;) {
    const answer = await (turn.task ? attach(turn) : send(turn));
    // the stream has ended or expired, but the conversation has the answer
    if (turn.task && [204, 410].includes(answer.status)) return open(turn.view.session);
    if (!answer.ok) return refuse(turn, await detail(answer));
    turn.task ??= answer.headers.get("x-resumable-stream-id");
    if (turn.view.turns[0] === turn) {
      if (turn.status !== "waiting") mark(turn, turn.cursor ? "streaming" : "waiting");
      else showStatus();
      if (await read(turn, answer)) return mark(turn, turn.outcome ?? "completed");
      turn.view.closing.signal.throwIfAborted();
      mark(turn, "reconnecting");
      await sleep(250);
    } else {
      await answer.body.cancel();
      await ahead;
    }
  }
}

function refuse(turn, text) {
  showError(turn, text);
  mark(turn, "failed");
  if (turn.message && !turn.task && !message.value) message.value = turn.message.parts[0].text;
}

function begin(turn) {
  const here = view;
  const ahead = here.turns.at(-1)?.ended;
  here.turns.push(turn);
  mark(turn, "waiting");
  turn.ended = follow(turn, ahead)
    .catch((error) => { if (here === view) refuse(turn, String(error)); })
    .then(() => {
      here.turns.splice(here.turns.indexOf(turn), 1);
      if (here === view) showStatus(turn.status);
    });
}

// --- sessions

function showStored(stored) {
  if (stored.role === "user") return add(conversation, "user", stored.parts.map((part) => part.text ?? "").join(""));
  const turn = addTurn(null);
  stored.parts.forEach((part, index) => {
    if (part.type === "text" || part.type === "reasoning") partBox(turn, `${index}`, part.type).append(part.text);
    else if (part.toolCallId) showTool(turn, part);
    else if (part.type === "data-error") showError(turn, part.data.message);
  });
  const status = stored.metadata?.status ?? "completed";
  if (status !== "completed") turn.note.textContent = status;
}

// Shows a session as the server has stored it, and resumes its running and waiting answers.
async function open(session) {
  view?.closing.abort();
  const here = (view = { session, turns: [], closing: new AbortController() });
  const reconnecting = () => { statusLine.textContent = "reconnecting"; };
  cancel.disabled = true;
  const answer = await request(here, `/sessions/${session}?format=ui`, {}, reconnecting).catch(() => null);
  const stored = answer?.ok ? await answer.json() : { messages: [], queued: [] };
  if (here !== view) return;
  conversation.replaceChildren();
  showStatus("");
  if (answer && !answer.ok && answer.status !== 404) add(conversation, "error", await detail(answer));
  stored.messages.forEach(showStored);
  if (stored.active_stream) begin(Object.assign(addTurn(null), { task: stored.active_stream.task_id }));
  for (const turn of stored.queued) begin(Object.assign(addTurn(turn.message), { task: turn.task_id }));
}

function openNew() {
  view?.closing.abort();
  view = { session: "try-" + randomHex(16), turns: [], closing: new AbortController() };
  conversation.replaceChildren();
  showStatus("");
}

// Keeps the session in the tab's history once it has a message; before that the server does not know the session.
function remember() {
  history.replaceState({ session: view.session }, "");
  sessionStorage.setItem("session", view.session);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = message.value;
  message.value = "";
  if (!text.trim()) return message.reportValidity();
  remember();
  const turn = addTurn(text);
  turn.message = { id: "m-" + randomHex(12), role: "user", parts: [{ type: "text", text }] };
  begin(turn);
});

cancel.addEventListener("click", async () => {
  const turn = view.turns[0];
  if (!turn?.task) return;
  turn.note.textContent = "cancelling";
  const answer = await fetch(`${api}/tasks/${turn.task}/cancel`, { method: "POST" }).catch(() => null);
  if (!answer?.ok) turn.note.textContent = answer ? await detail(answer) : "The server cannot be reached.";
});

byId("fresh").addEventListener("click", () => {
  if (history.state?.session) history.pushState({}, "");
  openNew();
  message.focus();
});

window.addEventListener("popstate", ({ state }) => (state?.session ? open(state.session) : openNew()));

byId("shell").textContent = `curl -N ${location.origin}${api} \\
  -H 'content-type: application/json' \\
  -d '{"id":"shell-${randomHex(16)}","messages":[
       {"id":"'"$(date +%s)"'","role":"user",
        "parts":[{"type":"text","text":"Hello"}]}]}'`;

const session = history.state ? history.state.session : sessionStorage.getItem("session");
history.replaceState({ session }, "");
if (session) open(session);
else openNew();
