// The title of the current view: shown in the browser's tab and, on a phone, in the bar at the top.
import { useEffect, useSyncExternalStore } from "react";

const changed = new EventTarget();
let title: string | null = null;
let answered = false; // an answer is done, and the tab has been hidden since

function setTitle(newTitle: string | null) {
  title = newTitle;
  document.title = (answered ? "✓ Answered · " : "") + (newTitle ? `${newTitle} · CoPilot` : "CoPilot");
  changed.dispatchEvent(new Event("changed"));
}

// Marks the title until the tab is shown.
export function markAnswered() {
  answered = true;
  setTitle(title);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !answered) return;
  answered = false;
  setTitle(title);
});

export function usePageTitle(newTitle: string | null) {
  useEffect(() => setTitle(newTitle), [newTitle]);
  useEffect(() => () => setTitle(null), []);
}

export const useCurrentTitle = () => useSyncExternalStore((listener) => {
  changed.addEventListener("changed", listener);
  return () => changed.removeEventListener("changed", listener);
}, () => title);
