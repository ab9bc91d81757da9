// The files of the message that is being written. Each is uploaded as soon as it is picked, pasted or dropped.
import type { FileUIPart } from "ai";
import { useCallback, useState } from "react";
import { api } from "../net/api";
import { newId } from "../ids";

export interface Uploads {
  files: FileUIPart[];
  running: string[]; // the names of files that are being uploaded
  problem: string | null;
  add(files: Iterable<File>): void;
  put(files: FileUIPart[]): void; // files that were uploaded before
  remove(file: FileUIPart): void;
  take(): FileUIPart[]; // the files for the message that is sent now
}

const MOST = 20;

export function useUploads(): Uploads {
  const [files, setFiles] = useState<FileUIPart[]>([]);
  const [running, setRunning] = useState<string[]>([]);
  const [problem, setProblem] = useState<string | null>(null);
  const put = useCallback((more: FileUIPart[]) => setFiles((now) => [...now, ...more].slice(0, MOST)), []);
  const add = useCallback((picked: Iterable<File>) => {
    void (async () => {
      setProblem(null);
      for (const file of picked) { // one after another: the server takes three of a user at a time
        setRunning((now) => [...now, file.name]);
        try {
          const { url, mediaType, filename, link } = await api.upload(file, newId());
          put([{ type: "file", url, mediaType, filename, providerMetadata: { copilot: { link } } }]);
        } catch (failure) {
          setProblem(`${file.name}: ${failure instanceof Error ? failure.message : "could not be uploaded."}`);
        }
        setRunning((now) => now.slice(1));
      }
    })();
  }, [put]);
  const remove = useCallback((file: FileUIPart) => setFiles((now) => now.filter((other) => other !== file)), []);
  return { files, running, problem, add, put, remove, take: () => (setFiles([]), setProblem(null), files) };
}
