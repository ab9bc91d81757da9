// One session as the server has it: its messages, the answer that is being written, what waits, what goes on outside.
// Whenever the page may have missed something it reads the session anew, and attaches to what runs.
import { useChat } from "@ai-sdk/react";
import type { UIMessage } from "ai";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { api, enqueue, patiently, Refused, type Operation, type QueuedTurn } from "./api";
import { listen, type FeedEvent } from "./feed";
import { newId } from "./ids";
import { forget, remember } from "./known";
import { announce } from "./news";
import { pause } from "./sse";
import { transportFor, type Wire } from "./transport";

export interface Outside {
  task_id: string;
  percent: number | null;
  message: string | null;
  since: number;
}
export type Conversation = ReturnType<typeof useConversation>;
type Loading = "loading" | "ready" | "missing";

export function useConversation(session: string, isNew: boolean, onFirst: () => void) {
  const [loading, setLoading] = useState<Loading>(isNew ? "ready" : "loading");
  const [anonymous, setAnonymous] = useState<boolean | null>(null);
  const [queued, setQueued] = useState<QueuedTurn[]>([]);
  const [outside, setOutside] = useState<ReadonlyMap<string, Outside>>(new Map());
  const [reconnecting, setReconnecting] = useState(false);
  const [stopping, setStopping] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const [usage, setUsage] = useState(0);
  const [title, setTitle] = useState<string | null>(null);
  const known = useRef({
    stale: false, // something happened that the page has not read
    lost: false, // a stream was gone: not at once again
    reading: false,
    running: 0, // answers that are sent for or attached to
    sent: !isNew,
    followed: new Set<string>(),
  });
  const following = useRef<string | null>(null);
  const accepted = useRef<(by: boolean) => void>(() => undefined); // whether the server took what was sent
  const line = useRef<Promise<unknown>>(Promise.resolve()); // messages reach the server in their order

  const wire = useMemo<Wire>(() => ({
    attachTo: null,
    onTask: (task) => {
      following.current = task;
      accepted.current(true);
      known.current.followed.add(task);
      announce();
    },
    onReconnecting: setReconnecting,
    onLost: () => {
      known.current.stale = known.current.lost = true;
    },
  }), []);
  const transport = useMemo(() => transportFor(wire), [wire]);
  const chat = useChat({ id: session, transport, throttle: 40, generateId: () => newId("m-"), onError: () => accepted.current(false) });
  const { messages, setMessages, status, error, clearError, resumeStream, sendMessage, regenerate } = chat;
  const busy = status === "submitted" || status === "streaming";
  const older = useRef<number | null | undefined>(undefined); // where older messages begin; null: there are none
  const waiting = useRef(0);
  waiting.current = queued.length;
  const life = useRef<AbortController>(new AbortController());
  const catchUp = useRef<() => void>(() => undefined);

  // From the request to the end of its stream. What was missed meanwhile, and what waited, comes then.
  const follow = useCallback((answer: Promise<void>) => {
    known.current.running++;
    void answer.catch(() => undefined).then(async () => {
      const state = known.current;
      state.running--;
      following.current = null;
      setStopping(false);
      setReconnecting(false);
      announce();
      if (state.lost) await pause(2, life.current.signal);
      state.lost = false;
      if (state.sent && (state.stale || waiting.current > 0)) catchUp.current();
    });
  }, []);

  const read = useCallback(async (signal: AbortSignal) => {
    const state = known.current;
    if (state.running > 0 || state.reading) {
      state.stale = true;
      return;
    }
    state.reading = true;
    state.stale = false;
    try {
      const details = await patiently(() => api.session(session), signal, () => setReconnecting(true));
      setReconnecting(false);
      if (signal.aborted) return;
      if (state.running > 0) {
        state.stale = true; // something was sent meanwhile
        return;
      }
      setMessages((old) => withOlder(old, details.messages));
      older.current ??= details.older;
      setQueued(details.queued);
      setUsage(details.usage.total_tokens);
      setTitle(details.title);
      setOutside((old) => new Map(details.operations.map((one) => [one.operation_id, asOutside(one, old)])));
      setAnonymous(details.user_id === null);
      if (details.user_id === null) remember(details);
      setLoading("ready");
      if (details.active_stream) {
        wire.attachTo = details.active_stream.task_id;
        follow(resumeStream());
      }
    } catch (failure) {
      if (signal.aborted) return;
      if (failure instanceof Refused && failure.status === 404) {
        forget(session);
        setLoading("missing");
      } else setProblem(failure instanceof Error ? failure.message : String(failure));
    } finally {
      state.reading = false;
      if (state.stale && state.sent && state.running === 0 && !signal.aborted) setTimeout(() => catchUp.current(), 50);
    }
  }, [session, setMessages, resumeStream, wire, follow]);
  catchUp.current = () => void read(life.current.signal);

  useEffect(() => {
    life.current = new AbortController();
    if (known.current.sent) void read(life.current.signal);
    return () => life.current.abort();
  }, [read]);

  const hear = useCallback((event: FeedEvent) => {
    if (event.type === "snapshot") {
      const running = event.turns?.find((turn) => turn.session_id === session && !turn.waiting);
      if (known.current.sent && (running ? running.task_id !== following.current : known.current.running === 0))
        void read(life.current.signal);
      return;
    }
    if (event.session_id !== session) return;
    if ((event.type === "operation-progress" || event.type === "operation-started") && event.operation_id) {
      setOutside((old) => withProgress(old, event));
    } else if (event.type === "title-changed") {
      setTitle(event.title ?? null);
    } else if (event.type === "session-deleted") {
      setLoading("missing");
    } else if (event.type === "turn-started" || event.type === "turn-finished") {
      const ours = event.task_id !== undefined && known.current.followed.has(event.task_id);
      if (!ours) void read(life.current.signal);
    } else if (event.type === "operation-finished" && event.status !== "completed") {
      void read(life.current.signal);
    }
  }, [session, read]);
  useEffect(() => listen(hear), [hear]);
  useEffect(() => (anonymous ? listen(hear, session) : undefined), [anonymous, hear, session]);

  const send = useCallback(async (text: string): Promise<boolean> => {
    setProblem(null);
    if (known.current.running === 0) {
      const state = known.current;
      if (!state.sent) state.stale = true; // what the server knows of a new session is read when it is there
      if (error) clearError();
      const message = { id: newId("m-"), role: "user" as const, parts: [{ type: "text" as const, text }] };
      const taken = new Promise<boolean>((resolve) => (accepted.current = resolve));
      line.current = taken;
      follow(sendMessage(message));
      if (!(await taken)) {
        setMessages((old) => old.filter(({ id }) => id !== message.id));
        return false;
      }
      if (!state.sent) onFirst();
      state.sent = true;
      return true;
    }
    const id = newId("m-");
    setQueued((old) => [...old, { task_id: "", message: text, message_id: id }]);
    try {
      const sent = line.current.then(() => enqueue(session, id, text));
      line.current = sent.catch(() => undefined);
      const task = await sent;
      setQueued((old) => old.map((one) => (one.message_id === id ? { ...one, task_id: task } : one)));
      known.current.stale = true;
      if (known.current.running === 0) void read(life.current.signal);
      return true;
    } catch (failure) {
      setQueued((old) => old.filter((one) => one.message_id !== id));
      setProblem(failure instanceof Error ? failure.message : String(failure));
      return false;
    }
  }, [session, sendMessage, setMessages, read, follow, error, clearError, onFirst]);

  const loadOlder = useCallback(async () => {
    const before = older.current;
    if (typeof before !== "number") return;
    older.current = undefined; // one at a time
    try {
      const page = await patiently(() => api.session(session, before), life.current.signal);
      older.current = page.older ?? null;
      setMessages((old) => [...page.messages.filter(({ id }) => !old.some((one) => one.id === id)), ...old]);
    } catch {
      older.current = before;
    }
  }, [session, setMessages]);

  const edit = useCallback((messageId: string, text: string) => {
    setProblem(null);
    follow(sendMessage({ text, messageId }));
  }, [sendMessage, follow]);

  const again = useCallback((messageId: string) => {
    setProblem(null);
    follow(regenerate({ messageId }));
  }, [regenerate, follow]);

  const stop = useCallback(async () => {
    setStopping(true);
    const task = following.current;
    try {
      await patiently(() => (task ? api.cancelTask(task) : api.cancelSession(session)), life.current.signal);
    } catch (failure) {
      setStopping(false);
      if (!life.current.signal.aborted) setProblem(failure instanceof Error ? failure.message : String(failure));
    }
  }, [session]);

  const cancelTask = useCallback(async (task: string) => {
    await api.cancelTask(task).catch((failure: Error) => setProblem(failure.message));
    setQueued((old) => old.filter((one) => one.task_id !== task));
    known.current.stale = true;
    void read(life.current.signal);
  }, [read]);

  return {
    messages: messages as UIMessage[], status, busy, loading, queued, outside, reconnecting, stopping, title, loadOlder,
    usage: Math.max(usage, spent(messages)),
    problem: problem ?? (error && !reconnecting && !saysWhy(messages.at(-1)) ? error.message : null),
    send, edit, again, stop, cancelTask,
  };
}

// A page of history takes the place of what is known of its messages; what came before it stays.
function withOlder(old: UIMessage[], page: UIMessage[]): UIMessage[] {
  const at = old.findIndex((message) => message.id === page[0]?.id);
  return at > 0 ? [...old.slice(0, at), ...page] : page;
}

const saysWhy = (message?: UIMessage) => message?.parts.some((part) => part.type === "data-error") ?? false;

function spent(messages: UIMessage[]): number {
  return messages.reduce((sum, { metadata }) =>
    sum + ((metadata as { usage?: { totalTokens?: number } } | undefined)?.usage?.totalTokens ?? 0), 0);
}

function asOutside(one: Operation, old: ReadonlyMap<string, Outside>): Outside {
  const before = old.get(one.operation_id);
  return {
    task_id: one.task_id,
    percent: one.progress?.percent ?? before?.percent ?? null,
    message: one.progress?.message ?? before?.message ?? null,
    since: Date.parse(one.created_at),
  };
}

function withProgress(old: ReadonlyMap<string, Outside>, event: FeedEvent): ReadonlyMap<string, Outside> {
  const id = event.operation_id!;
  const before = old.get(id);
  return new Map(old).set(id, {
    task_id: event.task_id ?? before?.task_id ?? "",
    percent: event.percent ?? before?.percent ?? null,
    message: event.message ?? before?.message ?? null,
    since: before?.since ?? Date.now(),
  });
}
