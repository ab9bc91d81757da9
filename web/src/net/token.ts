// The user's access token in this browser's storage. Without a token the page acts as an anonymous caller.
import { useSyncExternalStore } from "react";

const KEY = "copilot.token";

// "open": the server needs no token. "signed-in": it accepted the token. "anonymous": there is no token, so it lists no
// sessions. "refused": it rejected the token, or no longer accepts it.
export type Access = "unknown" | "open" | "signed-in" | "anonymous" | "refused";

let access: Access = "unknown";
const changed = new EventTarget();

const token = () => localStorage.getItem(KEY);

export function bearer(): Record<string, string> {
  const value = token();
  return value ? { authorization: `Bearer ${value}` } : {};
}

// Records that the server accepted or rejected a request for the user's data (not for one conversation).
export function recordAccess(accepted: boolean) {
  const next = token() ? (accepted ? "signed-in" : "refused") : accepted ? "open" : "anonymous";
  if (next === access) return;
  access = next;
  changed.dispatchEvent(new Event("changed"));
}

export function useAccess(): Access {
  return useSyncExternalStore(onChanged, () => access);
}

// Calls the listener before the token is removed.
export function onSignOut(listener: () => void): () => void {
  changed.addEventListener("signing-out", listener);
  return () => changed.removeEventListener("signing-out", listener);
}

function onChanged(listener: () => void) {
  changed.addEventListener("changed", listener);
  return () => changed.removeEventListener("changed", listener);
}

// Reloads the page, because its data was read for another caller.
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

// Removes drafts and unsent messages, so that the next user does not see them. Someone who continues without a refused
// token is still the same user.
function forgetUser() {
  if (access !== "refused") sessionStorage.clear();
}

// Reacts to signing in or out in another tab. A token that only replaces an older one is used without a reload.
window.addEventListener("storage", ({ key, oldValue, newValue }) => {
  if (key !== KEY || (access !== "refused" && (oldValue === null) === (newValue === null))) return;
  if (newValue === null) forgetUser();
  location.reload();
});
