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
