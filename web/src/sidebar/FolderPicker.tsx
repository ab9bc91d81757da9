import { useEffect, useState } from "react";
import { api, type Folder } from "../net/api";
import { onSessionsChanged } from "../net/sessionBroadcast";

// Chooses the folder whose conversations are listed. Shows nothing while there are no folders.
export function FolderPicker({ shown, onShow }: { shown: string; onShow: (folder: string) => void }) {
  const [folders, setFolders] = useState<Folder[]>([]);
  useEffect(() => {
    const load = () => void api.folders().then((found) => setFolders(found.folders), () => undefined);
    load();
    return onSessionsChanged(load);
  }, []);
  useEffect(() => {
    if (shown && folders.length > 0 && !folders.some(({ id }) => id === shown)) onShow("");
  }, [folders, shown, onShow]);
  if (folders.length === 0) return null;
  return (
    <select aria-label="Folder" value={shown} onChange={(event) => onShow(event.target.value)}>
      <option value="">All folders</option>
      {folders.map(({ id, name }) => <option key={id} value={id}>{name}</option>)}
    </select>
  );
}
