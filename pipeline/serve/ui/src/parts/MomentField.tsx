import { clockText, dayText } from "../format";

interface Props {
  readonly label: string;
  readonly unixS: number;
  /** Exclusive bounds, in Unix seconds. */
  readonly aboveS?: number;
  readonly belowS?: number;
  readonly change: (unixS: number) => void;
}

/** A moment in this browser's time zone, to the second. What lies outside of the bounds is said, and not taken. */
export function MomentField({ label, unixS, aboveS = 0, belowS = Infinity, change }: Props) {
  const changed = (field: HTMLInputElement) => {
    const at = Math.round(new Date(field.value).getTime() / 1000);
    if (at > aboveS && at < belowS) return change(at);
    field.setCustomValidity(aboveS ? `After ${localText(aboveS)}` : `Before ${localText(belowS)}`);
    field.reportValidity();
  };
  return (
    <input
      type="datetime-local"
      step="1"
      aria-label={label}
      value={localText(unixS)}
      {...(aboveS && { min: localText(aboveS) })}
      {...(belowS < Infinity && { max: localText(belowS) })}
      onInput={(event) => event.currentTarget.setCustomValidity("")}
      onChange={(event) => changed(event.currentTarget)}
    />
  );
}

function localText(unixS: number): string {
  return `${dayText(unixS * 1000)}T${clockText(unixS * 1000)}`;
}
