import type { Model } from "../net/api";
import type { Choice } from "./choice";

interface Props {
  models: Model[];
  choice: Choice | null; // null: the default model
  onChoose: (choice: Choice) => void;
}

// Shown only if there is a choice: between models, or between levels of effort.
export function ModelPicker({ models, choice, onChoose }: Props) {
  const model = models.find(({ id }) => id === choice?.model) ?? models.find((one) => one.default);
  if (!model || (models.length < 2 && model.efforts.length === 0)) return null;
  return (
    <div className="picker">
      {models.length > 1 && (
        <select aria-label="Model" value={model.id} onChange={({ target }) => onChoose({ model: target.value })}>
          {models.map(({ id, label }) => <option key={id} value={id}>{label}</option>)}
        </select>
      )}
      {model.efforts.length > 0 && (
        <select aria-label="Effort" value={choice?.effort ?? ""}
          onChange={({ target }) => onChoose({ model: model.id, ...(target.value && { effort: target.value }) })}>
          <option value="">Usual effort</option>
          {model.efforts.map((effort) => <option key={effort} value={effort}>{`Effort: ${effort}`}</option>)}
        </select>
      )}
    </div>
  );
}
