// Context for tool cards: pending operations, cancelling and answering them, and sending a message in the user's name.
import { createContext, useContext, useEffect, useState } from "react";
import type { Answer } from "../net/api";
import type { PendingOperation } from "./pendingOperations";

export interface ToolActions {
  session: string;
  pendingOperations: ReadonlyMap<string, PendingOperation>;
  cancelTask: (task: string) => Promise<void>;
  answer: (operation: string, given: Answer) => Promise<void>;
  send: (text: string) => void;
  repliesTo: (messageId: string) => string[]; // the user's messages after it
}

export const ToolActionsContext = createContext<ToolActions>({
  session: "",
  pendingOperations: new Map(),
  cancelTask: async () => undefined,
  answer: async () => undefined,
  send: () => undefined,
  repliesTo: () => [],
});

// The id of the message that contains the card.
export const MessageIdContext = createContext("");

const SHOWN_WITHIN_MS = 1_000;

// Lets a card send a message once. `sent` is the text of the matching reply, if there is one.
export function useSendOnce(
  matches: (text: string) => boolean,
): { sent: string | undefined; send: (text: string) => void } {
  const { send, repliesTo } = useContext(ToolActionsContext);
  const message = useContext(MessageIdContext);
  const [justSent, setJustSent] = useState<string>(); // bridges the time until the conversation shows the message
  useEffect(() => {
    if (justSent === undefined) return;
    const timer = setTimeout(() => setJustSent(undefined), SHOWN_WITHIN_MS);
    return () => clearTimeout(timer);
  }, [justSent]);
  const sent = repliesTo(message).find(matches);
  return {
    sent: sent ?? justSent,
    send: (text) => {
      setJustSent(text);
      send(text);
    },
  };
}
