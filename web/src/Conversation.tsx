import { useCallback, useEffect, useMemo, useRef, useState, type RefObject } from "react";
import { Composer } from "./Composer";
import { grouped } from "./groups";
import { Icon } from "./Icon";
import { Waiting } from "./Message";
import { MessageGroup } from "./MessageGroup";
import { useNaming } from "./naming";
import { nearness } from "./nearness";
import { useKeptPlace } from "./place";
import { Link } from "./route";
import { useSaid } from "./said";
import { shownMessages, type ShownMessage } from "./shown";
import { Acting } from "./tools/acting";
import { useConversation } from "./useConversation";
import { useFollowing } from "./useFollowing";
import type { Page } from "./view";

const SUGGESTIONS = [
  "Create an agent that reads my mail every morning at 8 and sends me a summary",
  "What can you do for me?",
  "Explain in a few words how an answer survives a restart of the server",
];

export function Conversation(props: Page & { session: string; isNew: boolean }) {
  const talk = useConversation(props.session, props.isNew, props);
  const { messages, queued, busy, status, send, outside, cancelTask } = talk;
  const [known] = useState(() => new WeakMap<object, ShownMessage>());
  const shown = useMemo(() => shownMessages(messages, known), [messages, known]);
  const groups = useGroups(shown);
  const scroll = useRef<HTMLDivElement>(null);
  const [watch] = useState(() => nearness(scroll));
  const follow = useFollowing(scroll, talk.state);
  useKeptPlace(scroll, groups[0]?.[0]?.message.id);
  useOlder(scroll, talk.loadOlder);
  const [editing, setEditing] = useState<string | null>(null);
  const saidSince = useSaid(messages, queued);
  const acting = useMemo(() => ({ outside, cancelTask, say: (text: string) => send(text), saidSince }),
    [outside, cancelTask, send, saidSince]);
  const sendAndFollow = useCallback((text: string) => {
    follow.hold();
    send(text);
  }, [send, follow]);
  const edit = useCallback((id: string, text: string | null) => {
    setEditing(null);
    if (text !== null) talk.edit(id, text);
  }, [talk.edit]);

  const empty = talk.state !== "loading" && messages.length === 0 && queued.length === 0;
  const last = shown.at(-1);
  const goesOn = busy || queued.length > 0;
  const behind = editing === null ? 0 : saidSince(editing).length;
  const title = talk.title ?? "New conversation";
  useNaming(talk.state === "missing" ? null : talk.title);

  if (talk.state === "missing")
    return (
      <div className="scroll center">
        <h1>This conversation is not here</h1>
        <p>It was deleted, or it is somebody else’s.</p>
        <p><Link className="button primary" href="/">New conversation</Link></p>
      </div>
    );
  return (
    <Acting value={acting}>
      <div className={empty ? "scroll center" : "scroll"} ref={scroll} tabIndex={-1}>
        {empty && <Welcome onPick={(text) => send(text)} />}
        {!empty && <h1 className="unseen">{title}</h1>}
        {!empty && (
          <div className="thread" role="log" aria-label="Conversation" aria-live="off" aria-busy={busy}>
            {groups.map((group, place) => (
              <MessageGroup key={group[0]!.message.id} messages={group} watch={watch} keep={place >= groups.length - 2}
                last={place === groups.length - 1 ? last?.message : undefined} busy={busy}
                editing={group.find(({ message }) => message.id === editing)?.message.id} behind={behind}
                onEdit={goesOn ? undefined : setEditing} onEdited={edit} onAgain={goesOn ? undefined : talk.again} />
            ))}
            {busy && (last === undefined || last.message.role === "user" || last.parts.length === 0) && <Waiting />}
            {queued.map((one) => (
              <div className="user queued" key={one.message_id ?? one.task_id}>
                <div className="bubble">{one.message}</div>
                <p className="note">
                  {one.task_id ? "Waits for its turn" : "On its way"}
                  {one.task_id && (
                    <button type="button" className="link" onClick={() => void cancelTask(one.task_id)}>Take back</button>
                  )}
                </p>
              </div>
            ))}
          </div>
        )}
      </div>
      <div className="foot">
        {!follow.atEnd && (
          <button type="button" className="to-end" onClick={follow.toEnd} aria-label="To the newest message">
            <Icon name="down" />
          </button>
        )}
        {talk.problem && <p className="problem" role="alert"><Icon name="warn" />{talk.problem}</p>}
        <Composer draft={talk.state === "new" ? "new" : props.session} returned={talk.returned} busy={busy}
          stopping={talk.stopping} onSend={sendAndFollow}
          onStop={() => void talk.stop()} />
        <p className="status" role="status">
          {talk.connection !== "live" ? <span className="reconnecting">{talk.connection === "offline" ? "No network" : "Reconnecting"}</span>
            : status === "submitted" ? "Sent" : busy ? "Answering" : talk.usage > 0 ? `${talk.usage.toLocaleString("en")} tokens` : ""}
        </p>
      </div>
    </Acting>
  );
}

function Welcome({ onPick }: { onPick: (text: string) => void }) {
  return (
    <div className="welcome">
      <h1>What shall we do?</h1>
      <p>Answers outlive this page: reload, close the laptop, come back. They carry on without it.</p>
      <ul>
        {SUGGESTIONS.map((text) => (
          <li key={text}><button type="button" onClick={() => onPick(text)}>{text}</button></li>
        ))}
      </ul>
    </div>
  );
}

function useGroups(shown: ShownMessage[]) {
  const before = useRef<ShownMessage[][]>([]);
  return useMemo(() => {
    const written = shown.filter(({ message, parts }) => message.role === "user" || parts.length > 0);
    return (before.current = grouped(written, before.current));
  }, [shown]);
}

// Near the top older messages are fetched.
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
