// The menu of a conversation in the list: pin, archive, export.
import { useId, useRef } from "react";
import { Icon } from "../Icon";
import { api, type Session } from "../net/api";

interface MoreProps {
  session: Session;
  onPlace: (place: { is_pinned?: boolean; is_archived?: boolean }) => void;
}

export function MoreButton({ session, onPlace }: MoreProps) {
  const id = useId();
  const menu = useRef<HTMLDivElement>(null);
  const title = session.title ?? "New conversation";
  const choose = (act: () => void) => () => {
    menu.current?.hidePopover();
    act();
  };
  // The menu is in the top layer, so that the list does not cut it; its place is that of the button.
  const show = (button: HTMLElement) => {
    const { left, bottom } = button.getBoundingClientRect();
    const style = menu.current!.style;
    style.left = `${left}px`;
    style.top = `${Math.min(bottom, innerHeight - 130)}px`;
  };
  return (
    <>
      <button type="button" className="quiet" aria-label={`More for ${title}`} title="More" aria-haspopup="menu"
        popoverTarget={id} onClick={(event) => show(event.currentTarget)}><Icon name="more" /></button>
      <div ref={menu} id={id} popover="auto" role="menu" className="menu" aria-label={title}>
        {session.is_pinned !== undefined && (
          <>
            <button type="button" role="menuitem" onClick={choose(() => onPlace({ is_pinned: !session.is_pinned }))}>
              {session.is_pinned ? "Unpin" : "Pin"}
            </button>
            <button type="button" role="menuitem" onClick={choose(() => onPlace({ is_archived: !session.is_archived }))}>
              {session.is_archived ? "Take out of the archive" : "Archive"}
            </button>
          </>
        )}
        <button type="button" role="menuitem" onClick={choose(() => void save(session.id, title).catch(() => undefined))}>
          Export as Markdown
        </button>
      </div>
    </>
  );
}

async function save(id: string, title: string) {
  const address = URL.createObjectURL(await api.exported(id));
  const link = Object.assign(document.createElement("a"), { href: address, download: `${title}.md` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
