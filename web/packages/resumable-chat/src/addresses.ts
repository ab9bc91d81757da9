const ID = "[^/?#]+";
/** What the AI SDK and this service append to the chat's own address. */
const INSIDE = new RegExp(`/(?:sessions/${ID}/stream|tasks/${ID}/stream|${ID}/stream)$`);

/** Where a task streams, seen from the request that began or resumed it. */
export function taskAddress(taskId: string, { api, asked, accept }: { api?: string | undefined; asked?: string; accept?: readonly string[] | undefined }): string {
  const chat = api ?? asked!.replace(/[?#].*$/, "").replace(INSIDE, "");
  return accepting(`${chat.replace(/\/$/, "")}/tasks/${encodeURIComponent(taskId)}/stream`, accept);
}

/** The address with what the reader understands beyond the common chunks. */
export function accepting(url: string, accept: readonly string[] | undefined): string {
  if (!accept?.length || /[?&]accept=/.test(url)) return url;
  return `${url}${url.includes("?") ? "&" : "?"}accept=${accept.map(encodeURIComponent).join(",")}`;
}
