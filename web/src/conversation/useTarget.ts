// Shows the message to which the address leads, such as one that a search found.
import { useCallback, useEffect, useState, type RefObject } from "react";
import type { Found } from "./ConversationStore";
import { untilLoaded } from "../loading";

const PROBLEMS: Record<Exclude<Found, "here">, string> = {
  missing: "The message was not found here. It may have been deleted.",
  busy: "The message is not on the version that is being answered. Others can be shown when the answer has ended.",
  unread: "Some messages could not be loaded, so this one is not shown yet.",
};

interface Target {
  id: string | null;
  ready: boolean;
  box: RefObject<HTMLElement | null>;
  lookFor: (id: string) => Promise<Found>;
  beforeScroll: () => void;
  onShown: () => void;
  onProblem: (text: string) => void;
}

// Returns the id of the message, which must be rendered even if it is far from the viewport, and whether it is looked
// for. `problem` tells why it is not shown if `retry` may help; the address keeps the message until then.
export function useTarget({ id, ready, box, lookFor, beforeScroll, onShown, onProblem }: Target) {
  const [rendered, setRendered] = useState<string | null>(null);
  const [looking, setLooking] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const [attempt, setAttempt] = useState(1);
  useEffect(() => {
    setProblem(null);
    if (id === null || !ready) return;
    const gone = new AbortController();
    const show = async (): Promise<Found> => {
      const found = await lookFor(id);
      if (gone.signal.aborted || found !== "here") return found;
      setRendered(id);
      const { reveal } = await untilLoaded(() => import("../scroll/reveal"));
      if (gone.signal.aborted) return found;
      beforeScroll();
      return box.current !== null && (await reveal(box.current, id, gone.signal)) ? "here" : "unread";
    };
    const conclude = (found: Found) => {
      if (gone.signal.aborted) return;
      setLooking(false);
      if (found === "unread" || found === "busy") return setProblem(PROBLEMS[found]);
      if (found === "missing") onProblem(PROBLEMS.missing);
      onShown();
    };
    setLooking(true);
    void show().then(conclude, () => conclude("unread"));
    return () => {
      gone.abort();
      setLooking(false);
    };
  }, [id, ready, attempt, box, lookFor, beforeScroll, onShown, onProblem]);
  const retry = useCallback(() => setAttempt((before) => before + 1), []);
  return { rendered, looking, problem, retry };
}
