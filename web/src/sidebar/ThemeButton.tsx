import { useState } from "react";
import { Icon } from "../Icon";

const isDark = () =>
  (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

export function ThemeButton() {
  const [dark, setDark] = useState(isDark);
  const change = () => {
    const theme = dark ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("copilot.theme", theme);
    setDark(!dark);
  };
  return (
    <button type="button" className="quiet" aria-label={dark ? "Light colours" : "Dark colours"} onClick={change}>
      <Icon name={dark ? "sun" : "moon"} />
    </button>
  );
}
