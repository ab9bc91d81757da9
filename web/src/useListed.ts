// A list that comes in pieces, for as long as its component stands.
import { useEffect, useState } from "react";

export interface Listed<T> {
  items: T[] | null; // null: nobody has answered yet
  more: boolean;
  loading: boolean;
  problem: string | null;
  load: () => void; // what comes next; what failed, again
}

// What has moved down since the last piece comes twice; by `keyOf` it is shown once.
export function useListed<T>(
  piece: (offset: number) => Promise<{ items: T[]; total: number }>,
  keyOf: (item: T) => string | number,
  delay = 0,
): Listed<T> {
  const [found, setFound] = useState<{ items: T[]; read: number; total: number } | null>(null);
  const [loading, setLoading] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const load = () => {
    const { items, read } = found ?? { items: [], read: 0 };
    const keys = new Set(items.map(keyOf));
    setLoading(true);
    setProblem(null);
    piece(read).then(
      (next) => setFound({
        items: [...items, ...next.items.filter((item) => !keys.has(keyOf(item)))],
        read: read + next.items.length,
        total: next.items.length > 0 ? next.total : read,
      }),
      (failure: Error) => setProblem(failure.message),
    ).finally(() => setLoading(false));
  };
  useEffect(() => {
    const timer = setTimeout(load, delay);
    return () => clearTimeout(timer);
  }, []);
  return { items: found?.items ?? null, more: found !== null && found.read < found.total, loading, problem, load };
}
