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
  const label = dark ? "Light colours" : "Dark colours";
  return (
    <button type="button" className="quiet" aria-label={label} title={label} onClick={change}>
      <Icon name={dark ? "sun" : "moon"} />
    </button>
  );
}
