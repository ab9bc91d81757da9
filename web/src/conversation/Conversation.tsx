import type { FileUIPart, UIMessage } from "ai";
import { useCallback, useEffect, useMemo, useRef, useState, type RefObject } from "react";
import { Icon } from "../Icon";
import type { QueuedTurn } from "../net/api";
import { useModels } from "../net/models";
import { usePageTitle } from "../pageTitle";
import { takenIn, type Part } from "../parts";
import { Link } from "../route";
import { nearViewport } from "../scroll/nearViewport";
import { useScrollAnchor } from "../scroll/scrollAnchor";
import { useFollowing } from "../scroll/useFollowing";
import { ToolActionsContext } from "../tools/toolActions";
import { Composer } from "./Composer";
import { grouped } from "./groups";
import { Waiting } from "./Message";
import { MessageGroup } from "./MessageGroup";
import { ModelPicker } from "./ModelPicker";
import { useReplies } from "./replies";
import { shownMessages, type ShownMessage } from "./shown";
import { useConversation } from "./useConversation";
import { useTarget } from "./useTarget";
import type { PageCallbacks } from "./ViewStore";

// Each of them works at the first click, with the scripted model as well.
const SUGGESTIONS = [
  "Create an agent that adds two numbers",
  "Create an agent that takes a name and says hello",
  "What can you do for me?",
];

interface Props extends PageCallbacks {
  session: string;
  isNew: boolean;
  message: string | null; // to be shown first
  onMessageShown: () => void;
}

export function Conversation(props: Props) {
  const conversation = useConversation(props.session, props.isNew, props);
  const { messages, busy, status, connection, usage, send, pendingOperations, cancelTask, answer } = conversation;
  const [known] = useState(() => new WeakMap<object, ShownMessage>());
  const shown = useMemo(() => shownMessages(messages, known), [messages, known]);
  const groups = useGroups(shown);
  const queued = useMemo(() => withoutTaken(conversation.queued, messages), [conversation.queued, messages]);
  const models = useModels();
  const scroll = useRef<HTMLDivElement>(null);
  const [watch] = useState(() => nearViewport(scroll));
  const follow = useFollowing(scroll, conversation.state);
  useScrollAnchor(scroll, groups[0]?.[0]?.message.id);
  useOlder(scroll, conversation.loadOlder);
  const target = useTarget({
    id: props.message, ready: conversation.state === "ready", box: scroll, lookFor: conversation.lookFor, beforeScroll: follow.leave,
    onShown: props.onMessageShown, onProblem: conversation.showProblemText,
  });
  const [editing, setEditing] = useState<string | null>(null);
  const repliesTo = useReplies(messages, queued);
  const toolActions = useMemo(() => ({ session: props.session, pendingOperations, cancelTask, answer, send: (text: string) => send(text), repliesTo }),
    [props.session, pendingOperations, cancelTask, answer, send, repliesTo]);
  const sendAndFollow = useCallback((text: string, files: FileUIPart[]) => {
    follow.toEnd();
    send(text, files);
  }, [send, follow]);
  const sendNow = useCallback((text: string, files: FileUIPart[]) => {
    follow.toEnd();
    conversation.sendNow(text, files);
  }, [conversation.sendNow, follow]);
  const edit = useCallback((id: string, text: string | null) => {
    setEditing(null);
    if (text !== null) conversation.edit(id, text);
  }, [conversation.edit]);

  const empty = conversation.state !== "loading" && messages.length === 0 && queued.length === 0;
  const last = shown.at(-1);
  const isActive = busy || queued.length > 0;
  const laterMessages = editing === null ? 0 : repliesTo(editing).length;
  const title = conversation.title ?? "New conversation";
  usePageTitle(conversation.state === "missing" ? null : conversation.title);

  if (conversation.state === "missing")
    return (
      <div className="scroll center">
        <h1>Conversation not found</h1>
        <p>It was deleted, or it belongs to someone else.</p>
        <p><Link className="button primary" href="/">New conversation</Link></p>
      </div>
    );
  return (
    <ToolActionsContext value={toolActions}>
      <div className={empty ? "scroll center" : "scroll"} ref={scroll} tabIndex={-1}>
        {empty && <Welcome onPick={(text) => send(text)} />}
        {!empty && <h1 className="unseen">{title}</h1>}
        {!empty && (
          <div className="thread" role="log" aria-label="Conversation" aria-live="off" aria-busy={busy}>
            {groups.map((group, place) => (
              <MessageGroup key={group[0]!.message.id} messages={group} watch={watch}
                keep={place >= groups.length - 2 || (target.rendered !== null && group.some(({ message }) => message.id === target.rendered))}
                last={place === groups.length - 1 ? last?.message : undefined} busy={busy}
                editing={group.find(({ message }) => message.id === editing)?.message.id} laterMessages={laterMessages}
                onEdit={isActive ? undefined : setEditing} onEdited={edit}
                onAgain={isActive ? undefined : conversation.again} alternatives={conversation.alternatives}
                switchedTo={conversation.switchedTo} onSwitch={isActive ? undefined : conversation.switchTo} />
            ))}
            {busy && (last === undefined || last.message.role === "user" || last.parts.length === 0) && <Waiting />}
            {queued.map((turn) => (
              <div className="user queued" key={turn.message_id ?? turn.task_id}>
                <div className="bubble">{turn.message}</div>
                <p className="note">
                  {!turn.task_id ? "Sending" : turn.steers ? "Will be read at the next step" : "Queued"}
                  {turn.task_id && (
                    <button type="button" className="link" onClick={() => void cancelTask(turn.task_id)}>
                      {turn.steers ? "Take back" : "Remove from queue"}
                    </button>
                  )}
                </p>
              </div>
            ))}
          </div>
        )}
      </div>
      <div className="foot">
        {!follow.atEnd && (
          <button type="button" className="to-end" onClick={follow.toEnd} aria-label="To the newest message" title="To the newest message">
            <Icon name="down" />
          </button>
        )}
        {conversation.problem && <p className="problem" role="alert"><Icon name="warn" />{conversation.problem}</p>}
        {target.problem && (
          <p className="problem" role="alert">
            <Icon name="warn" />{target.problem}
            <button type="button" className="link" onClick={target.retry}>Try again</button>
          </p>
        )}
        <Composer draft={conversation.state === "new" ? "new" : props.session} returned={conversation.returned}
          returnedFiles={conversation.returnedFiles} busy={busy}
          stopping={conversation.stopping} onSend={sendAndFollow} onSendNow={sendNow}
          onStop={() => void conversation.stop()} />
        <div className="below">
          <p className="status" role="status">
            {connection !== "live" ? <span className="reconnecting">{connection === "offline" ? "No network" : "Reconnecting"}</span>
              : target.looking ? "Looking for the message" : status === "submitted" ? "Sent" : busy ? "Answering" : usage > 0 ? `${usage.toLocaleString("en")} tokens` : ""}
          </p>
          <ModelPicker models={models} choice={conversation.choice} onChoose={conversation.choose} />
        </div>
      </div>
    </ToolActionsContext>
  );
}

// Leaves out the messages that the running answer shows already.
function withoutTaken(queued: QueuedTurn[], messages: UIMessage[]): QueuedTurn[] {
  if (queued.length === 0) return queued;
  const taken = takenIn(messages.slice(-1));
  return queued.filter(({ message_id }) => message_id === null || !taken.has(message_id));
}

function Welcome({ onPick }: { onPick: (text: string) => void }) {
  return (
    <div className="welcome">
      <h1>How can I help?</h1>
      <p>Answers continue without this page. Reload it, or close your laptop and come back later.</p>
      <ul>
        {SUGGESTIONS.map((text) => (
          <li key={text}><button type="button" onClick={() => onPick(text)}>{text}</button></li>
        ))}
      </ul>
    </div>
  );
}

// Returns true for a message that only continues one of several open questions: the card shows the answer.
const isSilent = ({ metadata }: UIMessage, parts: Part[]) =>
  (metadata as { finishReason?: string } | undefined)?.finishReason === "tool-calls" && parts.every(({ type }) => type === "step-start");

function useGroups(shown: ShownMessage[]) {
  const before = useRef<ShownMessage[][]>([]);
  return useMemo(() => {
    const written = shown.filter(({ message, parts }) => message.role === "user" || (parts.length > 0 && !isSilent(message, parts)));
    return (before.current = grouped(written, before.current));
  }, [shown]);
}

// Loads older messages when the reader scrolls near the top.
function useOlder(box: RefObject<HTMLDivElement | null>, load: () => Promise<unknown>) {
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const onScroll = () => {
      if (element.scrollTop > 1200 || element.scrollHeight <= element.clientHeight) return;
      void load();
    };
    element.addEventListener("scroll", onScroll, { passive: true });
    return () => element.removeEventListener("scroll", onScroll);
  }, [box, load]);
}
