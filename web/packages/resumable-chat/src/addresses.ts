const ID = "[^/?#]+";
/** Suffixes that the AI SDK and this service append to the chat's own address. */
const CHAT_SUFFIX = new RegExp(`/(?:sessions/${ID}/stream|tasks/${ID}/stream|${ID}/stream)$`);

/**
 * Returns the URL of a task's stream. Without `api`, it is derived from the URL of the request that started or resumed
 * the task.
 */
export function taskAddress(
  taskId: string,
  { api, asked, accept }: { api?: string | undefined; asked?: string; accept?: readonly string[] | undefined },
): string {
  const chat = api ?? asked!.replace(/[?#].*$/, "").replace(CHAT_SUFFIX, "");
  return accepting(`${chat.replace(/\/$/, "")}/tasks/${encodeURIComponent(taskId)}/stream`, accept);
}

/** Adds the chunk types that the reader understands beyond the common ones. */
export function accepting(url: string, accept: readonly string[] | undefined): string {
  if (!accept?.length || /[?&]accept=/.test(url)) return url;
  return `${url}${url.includes("?") ? "&" : "?"}accept=${accept.map(encodeURIComponent).join(",")}`;
}
