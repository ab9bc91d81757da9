// The menu of a conversation in the list, and the dialogs that it opens: share, folder, and why an export failed.
import { useEffect, useRef, useState, type ReactNode } from "react";
import { createPortal } from "react-dom";
import { CopyButton } from "../CopyButton";
import { api, type Folder, type Place, type Session, type Share } from "../net/api";
import { broadcastSessionsChanged } from "../net/sessionBroadcast";

export type Dialog = { kind: "share" } | { kind: "folder" } | { kind: "problem"; text: string };

interface Props {
  session: Session;
  onPlace: (place: Place) => void;
  onClose: () => void;
}

export function Menu({ session, onPlace, onDialog, onClose }: Props & { onDialog: (dialog: Dialog) => void }) {
  const choose = (act: () => void) => () => {
    onClose();
    act();
  };
  const save = (format: "markdown" | "json") => () =>
    saved(session, format).catch((failure: Error) => onDialog({ kind: "problem", text: failure.message }));
  const item = (label: string, act: () => unknown) => (
    <button type="button" role="menuitem" onClick={choose(() => void act())}>{label}</button>
  );
  return (
    <>
      {session.is_pinned !== undefined && (
        <>
          {item(session.is_pinned ? "Unpin" : "Pin", () => onPlace({ is_pinned: !session.is_pinned }))}
          {item(session.is_archived ? "Take out of the archive" : "Archive", () => onPlace({ is_archived: !session.is_archived }))}
          {item("Move to a folder", () => onDialog({ kind: "folder" }))}
        </>
      )}
      {item("Share", () => onDialog({ kind: "share" }))}
      {item("Export as Markdown", save("markdown"))}
      {item("Export as JSON", save("json"))}
    </>
  );
}

async function saved({ id, title }: Session, format: "markdown" | "json") {
  const address = URL.createObjectURL(await api.exported(id, format));
  const download = `${title ?? "New conversation"}.${format === "json" ? "json" : "md"}`;
  Object.assign(document.createElement("a"), { href: address, download }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

export function Dialogs({ dialog, ...props }: Props & { dialog: Dialog }) {
  if (dialog.kind === "share") return <ShareDialog {...props} />;
  if (dialog.kind === "folder") return <FolderDialog {...props} />;
  return (
    <Box title="The conversation could not be exported" onClose={props.onClose}>
      <p role="alert">{dialog.text}</p>
      <p className="row"><CloseButton /></p>
    </Box>
  );
}

function Box({ title, onClose, children }: { title: string; onClose: () => void; children: ReactNode }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return createPortal(
    <dialog ref={dialog} aria-label={title} onClose={onClose}>
      <h2>{title}</h2>
      {children}
    </dialog>,
    document.body, // the sidebar may be hidden
  );
}

const CloseButton = () => <button type="button" onClick={(event) => event.currentTarget.closest("dialog")?.close()}>Close</button>;

function ShareDialog({ session, onClose }: Props) {
  const [share, setShare] = useState<Share | null>(null);
  const [note, setNote] = useState("");
  const [ready, setReady] = useState(false); // the server takes share links
  const failed = (failure: Error) => setNote(failure.message);
  useEffect(() => {
    api.sharing(session.id).then(({ enabled, share }) => {
      setShare(share);
      setReady(enabled);
      if (!enabled) setNote("This server makes no share links. The operator can allow them (SHARE_LINKS).");
    }, failed);
  }, [session.id]);
  const make = () => api.share(session.id).then((made) => {
    setNote(share ? "The link shows the conversation as it is now." : "");
    setShare(made);
  }, failed);
  const withdraw = () => api.withdraw(session.id).then(() => {
    setShare(null);
    setNote("The link no longer works.");
  }, failed);
  const address = share && location.origin + share.path;
  return (
    <Box title="Share" onClose={onClose}>
      <p className="note">
        Everyone who has the link reads the texts of this conversation as they are when it is made: no later messages, no files,
        and nothing that tools returned.
      </p>
      {address && (
        <p className="row shared-link">
          <input readOnly aria-label="Link" value={address} onFocus={({ target }) => target.select()} />
          <CopyButton text={address} what="link" />
        </p>
      )}
      <p className="note" role="status">{note}</p>
      <p className="row">
        {ready && <button type="button" className="primary" onClick={() => void make()}>{share ? "Renew the copy" : "Make a link"}</button>}
        {share && <button type="button" className="danger" onClick={() => void withdraw()}>Withdraw the link</button>}
        <CloseButton />
      </p>
    </Box>
  );
}

function FolderDialog({ session, onPlace, onClose }: Props) {
  const [folders, setFolders] = useState<Folder[]>([]);
  const [name, setName] = useState("");
  const [note, setNote] = useState("");
  const failed = (failure: Error) => setNote(failure.message);
  const load = () => api.folders().then((found) => setFolders(found.folders), failed);
  useEffect(() => void load(), []);
  const move = (folder: string) => {
    onPlace({ folder_id: folder });
    onClose();
  };
  const changed = async (work: Promise<unknown>) => {
    await work.then(() => setNote(""), failed);
    broadcastSessionsChanged();
    void load();
  };
  return (
    <Box title="Move to a folder" onClose={onClose}>
      <ul className="folders">
        {folders.map((folder) => (
          <li key={folder.id} className="row between">
            <button type="button" className="link" aria-current={folder.id === session.folder_id} onClick={() => move(folder.id)}>{folder.name}</button>
            <span className="row">
              <button type="button" className="link" aria-label={`Rename ${folder.name}`} onClick={() => {
                const given = prompt("The name of the folder", folder.name)?.trim();
                if (given) void changed(api.renameFolder(folder.id, given));
              }}>Rename</button>
              <button type="button" className="link" aria-label={`Delete the folder ${folder.name}`}
                onClick={() => void changed(api.removeFolder(folder.id))}>Delete</button>
            </span>
          </li>
        ))}
      </ul>
      <form className="row" onSubmit={(event) => {
        event.preventDefault();
        if (name.trim()) api.makeFolder(name.trim()).then(({ id }) => move(id), failed);
      }}>
        <input aria-label="New folder" placeholder="New folder" maxLength={100} value={name} onChange={(event) => setName(event.target.value)} />
        <button type="submit" className="primary" disabled={!name.trim()}>Create and move</button>
      </form>
      <p className="note" role="status">{note}</p>
      <p className="row">
        {session.folder_id && <button type="button" onClick={() => move("")}>Take out of its folder</button>}
        <CloseButton />
      </p>
    </Box>
  );
}
