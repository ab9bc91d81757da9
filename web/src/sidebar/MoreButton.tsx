// Opens the menu of a conversation in the list. The menu and its dialogs are loaded with the first use.
import { Suspense, useId, useRef, useState } from "react";
import { Icon } from "../Icon";
import type { Place, Session } from "../net/api";
import type { Dialog } from "./Menu";
import { optional } from "../loading";

const Menu = optional(() => import("./Menu").then((file) => ({ default: file.Menu })));
const Dialogs = optional(() => import("./Menu").then((file) => ({ default: file.Dialogs })));

interface MoreProps {
  session: Session;
  onPlace: (place: Place) => void;
}

export function MoreButton({ session, onPlace }: MoreProps) {
  const id = useId();
  const menu = useRef<HTMLDivElement>(null);
  const [open, setOpen] = useState(false);
  const [dialog, setDialog] = useState<Dialog | null>(null);
  const title = session.title ?? "New conversation";
  // The menu is in the top layer, so that the list does not cut it; its place is that of the button.
  const show = (button: HTMLElement) => {
    const { left, bottom } = button.getBoundingClientRect();
    const style = menu.current!.style;
    style.left = `${left}px`;
    style.top = `${Math.min(bottom, innerHeight - 230)}px`;
  };
  return (
    <>
      <button type="button" className="quiet" aria-label={`More for ${title}`} title="More" aria-haspopup="menu"
        popoverTarget={id} onClick={(event) => show(event.currentTarget)}><Icon name="more" /></button>
      <div ref={menu} id={id} popover="auto" role="menu" className="menu" aria-label={title}
        onToggle={(event) => setOpen(event.newState === "open")}>
        {open && (
          <Suspense>
            <Menu session={session} onPlace={onPlace} onDialog={setDialog} onClose={() => menu.current?.hidePopover()} />
          </Suspense>
        )}
      </div>
      {dialog && <Suspense><Dialogs dialog={dialog} session={session} onPlace={onPlace} onClose={() => setDialog(null)} /></Suspense>}
    </>
  );
}
