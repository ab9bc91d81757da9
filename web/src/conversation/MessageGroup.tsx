// A group of messages. Far from the viewport, an empty box of the same height replaces them.
import type { UIMessage } from "ai";
import { memo, useEffect, useLayoutEffect, useRef, useState } from "react";
import { flushSync } from "react-dom";
import type { Alternatives } from "../net/api";
import type { Watch } from "../scroll/nearViewport";
import { anchorOf, restoreAnchor, type ScrollAnchor } from "../scroll/scrollAnchor";
import { Message } from "./Message";
import type { ShownMessage } from "./shown";

const ASSUMED_HEIGHT_PX = 120; // of a message that was never rendered

interface Props {
  messages: ShownMessage[];
  watch: Watch;
  keep: boolean;
  last?: UIMessage;
  busy: boolean;
  editing?: string;
  laterMessages: number;
  onEdit?: (id: string) => void;
  onEdited: (id: string, text: string | null) => void;
  onAgain?: (id: string) => void;
  alternatives: ReadonlyMap<string, Alternatives>;
  switchedTo: string | null;
  onSwitch?: (version: string) => void;
}

export const MessageGroup = memo(function MessageGroup(props: Props) {
  const { messages, watch, keep, last, busy, editing } = props;
  const box = useRef<HTMLDivElement>(null);
  const [near, setNear] = useState(keep);
  const now = useRef({ near: keep, keep, height: messages.length * ASSUMED_HEIGHT_PX });
  const before = useRef<ScrollAnchor | null>(null); // of the empty box that is about to be rendered

  useEffect(() => {
    const element = box.current!;
    const decide = () => {
      const { near, keep } = now.current;
      if (!near && (keep || isInUse(element))) return;
      if (!near) now.current.height = element.getBoundingClientRect().height;
      else if (!element.firstElementChild) before.current = anchorOf(element);
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
    if (rendered && before.current) restoreAnchor(box.current!, before.current);
    before.current = null;
  }, [rendered]);
  return (
    <div className="group" ref={box} style={rendered ? undefined : { height: now.current.height }}>
      {rendered && messages.map(({ message, parts }) => (
        <Message key={message.id} message={message} parts={parts} isLast={message === last}
          live={busy && message === last && message.role === "assistant"} editing={message.id === editing}
          laterMessages={props.laterMessages} onEdit={props.onEdit} onEdited={props.onEdited} onAgain={props.onAgain}
          alternatives={props.alternatives.get(message.id)} switchedTo={props.switchedTo} onSwitch={props.onSwitch} />
      ))}
    </div>
  );
});

// Returns true if removing the element would lose focus, a selection, opened details or typed text.
function isInUse(element: Element): boolean {
  const selection = getSelection();
  return element.contains(document.activeElement)
    || (selection !== null && !selection.isCollapsed && selection.containsNode(element, true))
    || element.querySelector("details[open]") !== null
    || [...element.querySelectorAll<HTMLInputElement>("textarea, input:enabled")].some(({ value }) => value !== "");
}
