import { Icon } from "../Icon";

export function Problem({ text, onAgain }: { text: string; onAgain?: () => void }) {
  return (
    <p className="problem" role="alert">
      <Icon name="warn" />{text}
      {onAgain && <button type="button" className="link" onClick={onAgain}>Try again</button>}
    </p>
  );
}
