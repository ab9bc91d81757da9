// Unsent text of this tab. It survives a reload.
const keyOf = (name: string) => `copilot.draft:${name}`;

export const draftOf = (name: string) => sessionStorage.getItem(keyOf(name)) ?? "";

export function saveDraft(name: string, text: string) {
  if (text) sessionStorage.setItem(keyOf(name), text);
  else sessionStorage.removeItem(keyOf(name));
}

export const addToDraft = (name: string, text: string) =>
  saveDraft(name, [draftOf(name), text].filter(Boolean).join("\n\n"));
