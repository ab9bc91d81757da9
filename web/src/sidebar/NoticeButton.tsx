import { useState } from "react";
import { Icon } from "../Icon";
import { canNotify, setNotices, wantsNotices } from "../notices";

export function NoticeButton() {
  const [on, setOn] = useState(wantsNotices);
  if (!canNotify()) return null;
  const label = "Notify me when an answer is done in a hidden tab";
  return (
    <button type="button" className="quiet" aria-label={label} title={label} aria-pressed={on}
      onClick={() => void setNotices(!on).then(setOn)}>
      <Icon name="bell" />
    </button>
  );
}
