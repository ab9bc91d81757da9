// The files of a tool's answer: pictures, sounds, and others by name.
import { useEffect, useState } from "react";
import { api } from "../net/api";
import { rows, type Output } from "./output";

export function ToolFiles({ output }: { output: Output }) {
  const files = rows(output.files);
  if (files.length === 0) return null;
  return (
    <ul className="files" aria-label="Files">
      {files.map((file) => (
        <li key={String(file.file_id)}><ToolFile id={String(file.file_id)} name={String(file.filename)} kind={String(file.media_type)} /></li>
      ))}
    </ul>
  );
}

function ToolFile({ id, name, kind }: { id: string; name: string; kind: string }) {
  const [link, setLink] = useState<string>(); // needs no token, and ends after some minutes
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let gone = false;
    api.file(id).then((file) => gone || setLink(file.link), () => gone || setFailed(true));
    return () => {
      gone = true;
    };
  }, [id]);
  if (failed) return <span className="note">{name} could not be loaded.</span>;
  if (link === undefined) return <span className="note">{name}</span>;
  if (kind.startsWith("audio/")) return <audio controls preload="none" src={link} aria-label={name} />;
  return (
    <a href={link} target="_blank" rel="noopener noreferrer">
      {kind.startsWith("image/") ? <img src={link} alt={name} loading="lazy" /> : name}
    </a>
  );
}
