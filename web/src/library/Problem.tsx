import { Icon } from "../Icon";

export function Problem({ text, onAgain, onClose }: { text: string; onAgain?: () => void; onClose?: () => void }) {
  return (
    <p className="problem" role="alert">
      <Icon name="warn" />{text}
      {onAgain && <button type="button" className="link" onClick={onAgain}>Try again</button>}
      {onClose && <button type="button" className="quiet" aria-label="Close" title="Close" onClick={onClose}><Icon name="close" /></button>}
    </p>
  );
}
