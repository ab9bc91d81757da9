// Switches between the versions of a message: edits of a question, other answers.
import { useEffect, useRef } from "react";
import { Icon } from "../Icon";
import type { Alternatives } from "../net/api";

interface Props {
  of: Alternatives;
  switchedTo: string | null;
  onSwitch?: (version: string) => void;
}

export function Versions({ of, switchedTo, onSwitch }: Props) {
  const { shown, index, count, siblings } = of;
  const place = siblings.indexOf(shown);
  const group = useRef<HTMLDivElement>(null);
  useEffect(() => {
    // Another version is another element, so the keyboard focus would be lost.
    if (switchedTo === shown && document.activeElement === document.body)
      group.current?.querySelector<HTMLButtonElement>('[aria-disabled="false"]')?.focus();
  }, [switchedTo, shown]);
  const button = (version: string | undefined, icon: "left" | "right", label: string) => (
    <button type="button" className="quiet" aria-label={label} title={label}
      aria-disabled={!version || !onSwitch} onClick={() => version && onSwitch?.(version)}>
      <Icon name={icon} />
    </button>
  );
  return (
    <div className="versions" role="group" aria-label={`Version ${index} of ${count}`} ref={group}>
      {button(siblings[place - 1], "left", "Previous version")}
      <span aria-hidden="true">{index} / {count}</span>
      {button(siblings[place + 1], "right", "Next version")}
    </div>
  );
}
