import type { PagedList } from "./usePagedList";

export function More({ list }: { list: PagedList<unknown> }) {
  if (!list.more) return null;
  return <p><button type="button" disabled={list.loading} onClick={list.load}>Show more</button></p>;
}
