// A list that is loaded page by page.
import { useEffect, useState } from "react";

export interface PagedList<T> {
  items: T[] | null; // null: no page has arrived yet
  more: boolean;
  loading: boolean;
  problem: string | null;
  load: () => void; // loads the next page, or repeats a failed request
}

// Loads the first page after `delay` ms. An item can move to the next page between two requests; `keyOf` identifies
// such duplicates.
export function usePagedList<T>(
  fetchPage: (offset: number) => Promise<{ items: T[]; total: number }>,
  keyOf: (item: T) => string | number,
  delay = 0,
): PagedList<T> {
  const [loaded, setLoaded] = useState<{ items: T[]; read: number; total: number } | null>(null);
  const [loading, setLoading] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const load = () => {
    const { items, read } = loaded ?? { items: [], read: 0 };
    const keys = new Set(items.map(keyOf));
    setLoading(true);
    setProblem(null);
    fetchPage(read).then(
      (next) => setLoaded({
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
  return { items: loaded?.items ?? null, more: loaded !== null && loaded.read < loaded.total, loading, problem, load };
}
