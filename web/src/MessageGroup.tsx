// Some messages of a conversation. Far from what is seen an empty box of their height takes their place.
import type { UIMessage } from "ai";
import { memo, useEffect, useLayoutEffect, useRef, useState } from "react";
import { flushSync } from "react-dom";
import { Message } from "./Message";
import type { Watch } from "./nearness";
import { keepPlace, placeOf, type Place } from "./place";
import type { ShownMessage } from "./shown";

const GUESS = 120; // pixels, the height of a message that was never rendered

interface Props {
  messages: ShownMessage[];
  watch: Watch;
  keep: boolean;
  last?: UIMessage;
  busy: boolean;
  editing?: string;
  behind: number;
  onEdit?: (id: string) => void;
  onEdited: (id: string, text: string | null) => void;
  onAgain?: (id: string) => void;
}

export const MessageGroup = memo(function MessageGroup(props: Props) {
  const { messages, watch, keep, last, busy, editing } = props;
  const box = useRef<HTMLDivElement>(null);
  const [near, setNear] = useState(keep);
  const now = useRef({ near: keep, keep, height: messages.length * GUESS });
  const before = useRef<Place | null>(null); // of the empty box that is to be rendered

  useEffect(() => {
    const element = box.current!;
    const decide = () => {
      const { near, keep } = now.current;
      if (!near && (keep || isInUse(element))) return;
      if (!near) now.current.height = element.getBoundingClientRect().height;
      else if (!element.firstElementChild) before.current = placeOf(element);
      setNear(near);
    };
    now.current.keep = keep;
    decide();
    return watch(element, (near) => {
      now.current.near = near;
      flushSync(decide);
    });
  }, [watch, keep]);

  const rendered = near || keep;
  useLayoutEffect(() => {
    if (rendered && before.current) keepPlace(box.current!, before.current);
    before.current = null;
  }, [rendered]);
  return (
    <div className="group" ref={box} style={rendered ? undefined : { height: now.current.height }}>
      {rendered && messages.map(({ message, parts }) => (
        <Message key={message.id} message={message} parts={parts} isLast={message === last}
          live={busy && message === last && message.role === "assistant"} editing={message.id === editing} behind={props.behind}
          onEdit={props.onEdit} onEdited={props.onEdited} onAgain={props.onAgain} />
      ))}
    </div>
  );
});

// Whether something would be lost: focus, what is selected, what was unfolded or written.
function isInUse(element: Element): boolean {
  const selection = getSelection();
  return element.contains(document.activeElement)
    || (selection !== null && !selection.isCollapsed && selection.containsNode(element, true))
    || element.querySelector("details[open]") !== null
    || [...element.querySelectorAll<HTMLInputElement>("textarea, input:enabled")].some(({ value }) => value !== "");
}
