// Messages and edits that the server has not accepted yet. They survive a reload and are sent again with the same ids,
// so the server accepts each of them once.
import type { FileUIPart } from "ai";
import type { Choice } from "./choice";

export interface UnsentMessage {
  session: string;
  id: string; // id of the message
  text: string;
  files?: FileUIPart[];
  begins: boolean; // the message creates its session
  choice: Choice | null; // null: the model of the conversation answers
  steers?: boolean; // sent for the running answer
  revision?: string; // set if this edits the message `id`: the idempotency key of the edit
}

const KEY = "copilot.outbox";

export const unsentMessages = (): UnsentMessage[] => JSON.parse(sessionStorage.getItem(KEY) ?? "[]") as UnsentMessage[];

function write(messages: UnsentMessage[]) {
  try {
    if (messages.length > 0) sessionStorage.setItem(KEY, JSON.stringify(messages));
    else sessionStorage.removeItem(KEY);
  } catch {
    // The storage is full: the message is sent but does not survive a reload.
  }
}

export const addUnsent = (message: UnsentMessage) =>
  write([...unsentMessages().filter(({ id }) => id !== message.id), message]);

export const removeUnsent = (matches: (message: UnsentMessage) => boolean) =>
  write(unsentMessages().filter((message) => !matches(message)));

export const unsentSessions = () => [...new Set(unsentMessages().map(({ session }) => session))];

// Returns true if the message that creates this session is still unsent.
export const isNotCreatedYet = (session: string) =>
  unsentMessages().some((message) => message.begins && message.session === session);
