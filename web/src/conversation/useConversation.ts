// Gives React components a conversation for as long as it is on the page.
import { useChat } from "@ai-sdk/react";
import type { UIMessage } from "ai";
import { useEffect, useState, useSyncExternalStore } from "react";
import { subscribeToFeed } from "../net/feed";
import { useAccess } from "../net/token";
import { ConversationStore } from "./ConversationStore";
import type { PageCallbacks } from "./ViewStore";

export function useConversation(session: string, isNew: boolean, page: PageCallbacks) {
  const [store] = useState(() => new ConversationStore(session, isNew, page));
  const view = useSyncExternalStore(store.view.subscribe, () => store.view.current);
  const { messages, status, error } = useChat({ chat: store.chat, throttle: 40 });
  const needsOwnFeed = useAccess() === "anonymous" || view.unowned; // the user's feed has no events of this session
  const exists = view.state !== "new";
  useEffect(store.open, [store]);
  useEffect(() => subscribeToFeed(store.onFeedEvent), [store]);
  useEffect(
    () => (needsOwnFeed && exists ? subscribeToFeed(store.onFeedEvent, session) : undefined),
    [needsOwnFeed, exists, store, session],
  );

  const { send, sendNow, edit, again, switchTo, stop, cancelTask, answer, loadOlder, lookFor, choose, showProblemText } = store;
  const streamProblem = error && view.connection === "live" && !hasErrorPart(messages.at(-1)) ? error.message : null;
  return {
    ...view, messages, status, send, sendNow, edit, again, switchTo, stop, cancelTask, answer, loadOlder, lookFor, choose, showProblemText,
    problem: view.problem ?? streamProblem,
  };
}

const hasErrorPart = (message?: UIMessage) => message?.parts.some((part) => part.type === "data-error") ?? false;
