// What was said and the server has not taken yet. It survives a reload, and goes out again with the same ids: the server
// takes it once.
export interface Unsent {
  session: string;
  id: string; // the message's
  text: string;
  begins: boolean; // its session is there when the server has taken it
  revision?: string; // it takes the place of the message that has the id; the key of that act
}

const KEY = "copilot.outbox";

export const unsent = (): Unsent[] => JSON.parse(sessionStorage.getItem(KEY) ?? "[]") as Unsent[];

function write(all: Unsent[]) {
  try {
    if (all.length > 0) sessionStorage.setItem(KEY, JSON.stringify(all));
    else sessionStorage.removeItem(KEY);
  } catch {
    // there is no room: it is sent all the same
  }
}

export const keep = (one: Unsent) => write([...unsent().filter(({ id }) => id !== one.id), one]);

export const drop = (gone: (one: Unsent) => boolean) => write(unsent().filter((one) => !gone(one)));

export const waitingSessions = () => [...new Set(unsent().map(({ session }) => session))];

// Whether the server does not know of this conversation yet.
export const waitsToBegin = (session: string) => unsent().some((one) => one.begins && one.session === session);
