// For whom the page speaks: for the user of the token in this browser's storage, or without one for an anonymous caller.
import { useSyncExternalStore } from "react";

const KEY = "copilot.token";

// open: the server asks for nothing; signed-in: it took the token; anonymous: there is none, and it lists nothing then;
// refused: it does not take the token (any more).
export type Access = "unknown" | "open" | "signed-in" | "anonymous" | "refused";

let access: Access = "unknown";
const changed = new EventTarget();

const token = () => localStorage.getItem(KEY);

export function bearer(): Record<string, string> {
  const value = token();
  return value ? { authorization: `Bearer ${value}` } : {};
}

// What an answer to a request for the user (not for one conversation) said of the token.
export function judge(taken: boolean) {
  const now = token() ? (taken ? "signed-in" : "refused") : taken ? "open" : "anonymous";
  if (now === access) return;
  access = now;
  changed.dispatchEvent(new Event("changed"));
}

export function useAccess(): Access {
  return useSyncExternalStore(onChanged, () => access);
}

// The last moment with the token.
export function onSignOut(listener: () => void): () => void {
  changed.addEventListener("signing-out", listener);
  return () => changed.removeEventListener("signing-out", listener);
}

function onChanged(listener: () => void) {
  changed.addEventListener("changed", listener);
  return () => changed.removeEventListener("changed", listener);
}

// Everything on the page was read for somebody else.
export function signIn(value: string) {
  localStorage.setItem(KEY, value);
  location.reload();
}

export function signOut() {
  changed.dispatchEvent(new Event("signing-out"));
  localStorage.removeItem(KEY);
  forgetUser();
  location.assign("/");
}

// Drafts and messages on their way are not for whoever comes next. (Who goes on without a refused token is the same.)
function forgetUser() {
  if (access !== "refused") sessionStorage.clear();
}

// In another tab somebody signed in or out. A token that only takes the place of an older one is used from now on.
window.addEventListener("storage", ({ key, oldValue, newValue }) => {
  if (key !== KEY || (access !== "refused" && (oldValue === null) === (newValue === null))) return;
  if (newValue === null) forgetUser();
  location.reload();
});
