export const day = (moment: string) =>
  new Date(moment).toLocaleString("en", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });

export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

export const RHYTHMS = {
  daily: "Every day",
  weekdays: "Every weekday",
  weekly: "Every week",
  hourly: "Every hour",
  cron: "Cron expression",
} as const;
export type Rhythm = keyof typeof RHYTHMS;
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

// Returns the cron expression of a rhythm, at a time such as `08:00`. Weekly schedules run on Mondays. It is empty if no
// time was chosen.
export function cronOf(rhythm: Rhythm, time: string, cron: string): string {
  if (!time && rhythm !== "cron") return "";
  const [hour = 8, minute = 0] = time.split(":").map(Number);
  return {
    daily: `${minute} ${hour} * * *`, weekdays: `${minute} ${hour} * * 1-5`, weekly: `${minute} ${hour} * * 1`,
    hourly: `${minute} * * * *`, cron: cron.trim(),
  }[rhythm];
}

// Returns a cron expression in words, or the expression itself if it is not a simple one.
export function inWords(cron: string): string {
  const [minute = "", hour = "", date, month, weekday = ""] = cron.split(/\s+/);
  if (!/^\d+$/.test(minute) || date !== "*" || month !== "*") return cron;
  if (hour === "*" && weekday === "*") return minute === "0" ? "Every hour" : `Every hour at minute ${minute}`;
  if (!/^\d+$/.test(hour)) return cron;
  const at = ` at ${hour.padStart(2, "0")}:${minute.padStart(2, "0")}`;
  if (weekday === "*") return `Every day${at}`;
  if (weekday === "1-5") return `Every weekday${at}`;
  const days = weekday.split(",").map((one) => (/^\d$/.test(one) ? DAYS[Number(one) % 7] : undefined));
  return days.every(Boolean) ? `Every ${days.join(" and ")}${at}` : cron;
}
