// The title of the current view: shown in the browser's tab and, on a phone, in the bar at the top.
import { useEffect, useSyncExternalStore } from "react";

const changed = new EventTarget();
let title: string | null = null;

function setTitle(newTitle: string | null) {
  title = newTitle;
  document.title = newTitle ? `${newTitle} · CoPilot` : "CoPilot";
  changed.dispatchEvent(new Event("changed"));
}

export function usePageTitle(newTitle: string | null) {
  useEffect(() => setTitle(newTitle), [newTitle]);
  useEffect(() => () => setTitle(null), []);
}

export const useCurrentTitle = () => useSyncExternalStore((listener) => {
  changed.addEventListener("changed", listener);
  return () => changed.removeEventListener("changed", listener);
}, () => title);
