// Shows the message to which the address leads, such as one that a search found.
import { useEffect, useState, type RefObject } from "react";

const NOT_SHOWN = "The message was not found here. It may belong to another version of an edited message.";

interface Target {
  id: string | null;
  ready: boolean;
  box: RefObject<HTMLElement | null>;
  loadUntil: (id: string) => Promise<boolean>;
  beforeScroll: () => void;
  onShown: () => void;
  onProblem: (text: string) => void;
}

// Returns the id of the message, which must be rendered even if it is far from the viewport, and whether it is looked for.
export function useTarget({ id, ready, box, loadUntil, beforeScroll, onShown, onProblem }: Target) {
  const [rendered, setRendered] = useState<string | null>(null);
  const [looking, setLooking] = useState(false);
  useEffect(() => {
    if (id === null || !ready) return;
    const gone = new AbortController();
    const show = async () => {
      const found = await loadUntil(id);
      if (gone.signal.aborted) return;
      setRendered(id);
      const { reveal } = await import("../scroll/reveal");
      if (gone.signal.aborted) return;
      if (found) beforeScroll();
      const shown = found && box.current !== null && (await reveal(box.current, id, gone.signal));
      if (gone.signal.aborted) return;
      if (!shown) onProblem(NOT_SHOWN);
      onShown();
    };
    setLooking(true);
    void show().catch(() => onProblem(NOT_SHOWN)).finally(() => gone.signal.aborted || setLooking(false));
    return () => {
      gone.abort();
      setLooking(false);
    };
  }, [id, ready, box, loadUntil, beforeScroll, onShown, onProblem]);
  return { rendered, looking };
}
