// What is looked at is called something: in the browser's tab, and on a phone above it.
import { useEffect, useSyncExternalStore } from "react";

const changed = new EventTarget();
let name: string | null = null;

function call(it: string | null) {
  name = it;
  document.title = it ? `${it} · CoPilot` : "CoPilot";
  changed.dispatchEvent(new Event("changed"));
}

export function useNaming(it: string | null) {
  useEffect(() => call(it), [it]);
  useEffect(() => () => call(null), []);
}

export const useName = () => useSyncExternalStore((listener) => {
  changed.addEventListener("changed", listener);
  return () => changed.removeEventListener("changed", listener);
}, () => name);
