// The files of a user's message: pictures as small previews, others by name. A link needs no token, and ends after a
// while; the history has new ones.
import type { FileUIPart } from "ai";

const linkOf = ({ url, providerMetadata }: FileUIPart) => {
  const link = providerMetadata?.copilot?.link;
  return typeof link === "string" ? link : url.startsWith("/api/chat/files/") ? url : undefined;
};

export function Files({ files, onRemove }: { files: FileUIPart[]; onRemove?: (file: FileUIPart) => void }) {
  if (files.length === 0) return null;
  return (
    <ul className="files" aria-label="Files">
      {files.map((file, place) => (
        <li key={place}>
          <a href={linkOf(file)} target="_blank" rel="noopener noreferrer">
            {file.mediaType.startsWith("image/") ? <img src={linkOf(file)} alt={file.filename ?? "Picture"} loading="lazy" /> : file.filename ?? "File"}
          </a>
          {onRemove && (
            <button type="button" className="quiet" aria-label={`Remove ${file.filename ?? "file"}`} onClick={() => onRemove(file)}>
              ×
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}
