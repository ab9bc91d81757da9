// Sessions of callers without a token: the server lists none, their ids are the keys to them. This browser keeps them.
import type { Session } from "./api";

const KEY = "copilot.sessions";
const MOST = 200;

export function knownSessions(): Session[] {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "[]") as Session[];
  } catch {
    return [];
  }
}

export function remember({ id, title, created_at, updated_at }: Session) {
  const others = knownSessions().filter((session) => session.id !== id);
  localStorage.setItem(KEY, JSON.stringify([{ id, title, created_at, updated_at }, ...others].slice(0, MOST)));
}

export function forget(id: string) {
  localStorage.setItem(KEY, JSON.stringify(knownSessions().filter((session) => session.id !== id)));
}
