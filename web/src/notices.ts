// Tells the user that an answer is done while the tab is hidden: in the tab's title and, if the user has asked for it,
// by a notification of the system.
import { markAnswered } from "./pageTitle";

const KEY = "copilot.notices";

export const canNotify = () => "Notification" in window && isSecureContext;
export const wantsNotices = () => canNotify() && Notification.permission === "granted" && localStorage.getItem(KEY) === "on";

// Resolves to true if notifications are on now. The browser may ask the user first.
export async function setNotices(on: boolean): Promise<boolean> {
  const allowed = on && (await Notification.requestPermission()) === "granted";
  localStorage.setItem(KEY, allowed ? "on" : "off");
  return allowed;
}

export function announceAnswer(session: string, title: string | null) {
  markAnswered();
  if (!wantsNotices()) return;
  try {
    const notice = new Notification("The answer is done", { body: title ?? undefined, tag: session }); // one for all tabs
    notice.onclick = () => {
      window.focus();
      notice.close();
    };
  } catch {
    // a phone takes notifications only from service workers; the title is marked
  }
}
