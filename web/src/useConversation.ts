// A conversation for React, from the moment it is looked at until it is left.
import { useChat } from "@ai-sdk/react";
import type { UIMessage } from "ai";
import { useEffect, useState, useSyncExternalStore } from "react";
import { listen } from "./feed";
import { Talk } from "./talk";
import { useAccess } from "./token";
import type { Page } from "./view";

export function useConversation(session: string, isNew: boolean, page: Page) {
  const [talk] = useState(() => new Talk(session, isNew, page));
  const view = useSyncExternalStore(talk.board.subscribe, () => talk.board.now);
  const { messages, status, error } = useChat({ chat: talk.chat, throttle: 40 });
  const alone = useAccess() === "anonymous" || view.unowned; // the user's feed does not tell of this session
  const begun = view.state !== "new";
  useEffect(talk.open, [talk]);
  useEffect(() => listen(talk.hear), [talk]);
  useEffect(() => (alone && begun ? listen(talk.hear, session) : undefined), [alone, begun, talk, session]);

  const { send, edit, again, stop, cancelTask, loadOlder } = talk;
  const told = error && view.connection === "live" && !saysWhy(messages.at(-1)) ? error.message : null;
  return {
    ...view, messages, status, send, edit, again, stop, cancelTask, loadOlder,
    problem: view.problem ?? told,
  };
}

const saysWhy = (message?: UIMessage) => message?.parts.some((part) => part.type === "data-error") ?? false;
