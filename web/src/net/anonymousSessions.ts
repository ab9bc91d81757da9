// Sessions of callers without a token, kept in this browser. The server does not list them: whoever has the id has
// access.
import type { Session } from "./api";

const KEY = "copilot.sessions";
const MAX_SESSIONS = 200;

export function anonymousSessions(): Session[] {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "[]") as Session[];
  } catch {
    return [];
  }
}

export function rememberSession({ id, title, created_at, updated_at }: Session) {
  const others = anonymousSessions().filter((session) => session.id !== id);
  localStorage.setItem(KEY, JSON.stringify([{ id, title, created_at, updated_at }, ...others].slice(0, MAX_SESSIONS)));
}

export function forgetSession(id: string) {
  localStorage.setItem(KEY, JSON.stringify(anonymousSessions().filter((session) => session.id !== id)));
}
