// A conversation in groups: each is rendered, or left out, as a whole. A group stays when messages come before or after it.
import type { ShownMessage } from "./shown";

const SIZE = 8;

export function grouped(messages: ShownMessage[], before: ShownMessage[][]): ShownMessage[][] {
  const old = new Map(before.map((group) => [group[0]!.message.id, group]));
  const known = messages.findIndex(({ message }) => old.has(message.id));
  const short = (known < 0 ? messages.length : known) % SIZE; // what comes in front is counted from its end
  const groups: ShownMessage[][] = [];
  messages.forEach((one, place) => {
    const full = groups.at(-1)?.length === SIZE;
    if (place === 0 || place === short || full || old.has(one.message.id)) groups.push([one]);
    else groups.at(-1)!.push(one);
  });
  return groups.map((group) => {
    const same = old.get(group[0]!.message.id);
    return same?.length === group.length && same.every((one, place) => one === group[place]) ? same : group;
  });
}
