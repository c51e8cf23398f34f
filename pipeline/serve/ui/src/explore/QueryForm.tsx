/** A form that writes the query, for people who do not know the language; it reads simple queries back. */
import { useEffect, useState } from "preact/hooks";
import { useAnswer } from "../api/useAnswer";
import { type Condition, conditionsOf, durationLiteral, type Operator, OPERATORS, quoted, spanset, typedLiteral, unquoted } from "../query";
import { apiRange, type Range } from "../range";
import { attributeNames, valuesOf } from "./suggestions";

const SERVICE = "resource.service.name";

interface Props {
  readonly query: string;
  readonly range: Range;
  readonly write: (query: string) => void;
}

/** One field of the form: a condition on a name with an operator, or none. */
interface Field {
  readonly label: string;
  readonly name: string;
  readonly op: Operator;
  readonly placeholder: string;
  /** Can it show this value of a query? */
  readonly shows: (literal: string) => boolean;
  /** What was typed, as it stands in a query; null where it is no value for it. */
  readonly read: (typed: string) => string | null;
}

const STATUSES = ["error", "ok", "unset"];
const TEXT = { op: "=", placeholder: "any", shows: (literal: string) => /^["`]/.test(literal), read: quoted } as const;
const DURATION = { name: "duration", shows: (literal: string) => durationLiteral(literal) === literal, read: durationLiteral } as const;
const FIELDS: readonly Field[] = [
  { ...TEXT, label: "Service", name: SERVICE },
  { ...TEXT, label: "Operation", name: "name" },
  { ...DURATION, label: "At least", op: ">=", placeholder: "100ms" },
  { ...DURATION, label: "At most", op: "<=", placeholder: "2s" },
];
const STATUS: Field = { label: "Status", name: "status", op: "=", placeholder: "any", shows: (literal) => STATUSES.includes(literal), read: (typed) => typed };

/** The condition that a field shows: the first that it can. */
function shownBy(field: Field, conditions: readonly Condition[]): Condition | undefined {
  return conditions.find((one) => one.name === field.name && one.op === field.op && field.shows(one.value));
}

export function QueryForm({ query, range, write }: Props) {
  const conditions = conditionsOf(query);
  const times = apiRange(range);
  const services = useAnswer(() => valuesOf(SERVICE, "", times), [Math.floor(range.fromS / 60)]);
  const chosen = conditions ? shownBy(FIELDS[0]!, conditions) : undefined;
  const among = chosen ? spanset([chosen]) : "";
  const operations = useAnswer(() => valuesOf("name", among, times), [among, Math.floor(range.fromS / 60)]);
  const names = useAnswer(() => attributeNames(times), [Math.floor(range.fromS / 60)]);
  if (conditions === null) {
    return (
      <p class="form-note dim">
        This query says more than the form can show.{" "}
        <button type="button" onClick={() => write("")}>
          Start anew
        </button>
      </p>
    );
  }
  const shown = new Map([...FIELDS, STATUS].map((field) => [field, shownBy(field, conditions)]));
  const inFields = new Set(shown.values());
  const rest = conditions.filter((one) => !inFields.has(one));
  const replace = (field: Field, value: string) => {
    const before = shown.get(field);
    const after = value ? [{ name: field.name, op: field.op, value }] : [];
    write(spanset(before ? conditions.flatMap((one) => (one === before ? after : [one])) : [...conditions, ...after]));
  };
  const lists: Record<string, readonly string[]> = { [SERVICE]: services.value ?? [], name: operations.value ?? [] };

  return (
    <div class="query-form">
      {FIELDS.map((field) => (
        <label key={field.label}>
          {field.label}
          <TextField
            value={unquoted(shown.get(field)?.value ?? "")}
            placeholder={field.placeholder}
            options={(lists[field.name] ?? []).map(unquoted)}
            read={field.read}
            change={(literal) => replace(field, literal)}
          />
        </label>
      ))}
      <label>
        Status
        <select value={shown.get(STATUS)?.value ?? ""} onChange={(event) => replace(STATUS, event.currentTarget.value)}>
          <option value="">any</option>
          {STATUSES.map((one) => (
            <option key={one} value={one}>
              {one}
            </option>
          ))}
        </select>
      </label>
      <ul class="tags" aria-label="Further conditions">
        {rest.map((one) => (
          <li key={`${one.name}${one.op}${one.value}`}>
            <code>
              {one.name} {one.op} {one.value.slice(0, 80)}
            </code>
            <button
              type="button"
              class="quiet"
              aria-label={`Remove ${one.name}`}
              onClick={() => write(spanset(conditions.filter((each) => each !== one)))}
            >
              ×
            </button>
          </li>
        ))}
      </ul>
      <AddCondition names={names.value ?? []} add={(one) => write(spanset([...conditions, one]))} />
    </div>
  );
}

function AddCondition(props: { names: readonly string[]; add: (condition: Condition) => void }) {
  const add = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.target as HTMLFormElement;
    const given = new FormData(form);
    const [name, op, value] = ["name", "op", "value"].map((field) => `${given.get(field) ?? ""}`.trim());
    if (!name || !value) return;
    props.add({ name, op: op as Operator, value: typedLiteral(name, value, op as Operator) });
    form.reset();
  };
  return (
    <form class="add-condition" onSubmit={add}>
      <input name="name" list="attribute-names" aria-label="Attribute" placeholder="span.http.route" autocomplete="off" />
      <datalist id="attribute-names">
        {props.names.map((name) => (
          <option key={name} value={name} />
        ))}
      </datalist>
      <select name="op" aria-label="Comparison">
        {OPERATORS.map((op) => (
          <option key={op}>{op}</option>
        ))}
      </select>
      <input name="value" aria-label="Value" placeholder="/orders" autocomplete="off" />
      <button type="submit">Add</button>
    </form>
  );
}

interface TextFieldProps {
  readonly value: string;
  readonly placeholder: string;
  readonly options: readonly string[];
  readonly read: Field["read"];
  /** Is told what was typed as it stands in a query; "" for nothing. */
  readonly change: (literal: string) => void;
}

function TextField(props: TextFieldProps) {
  const [text, setText] = useState(props.value);
  const [list] = useState(() => `list-${Math.random().toString(36).slice(2)}`);
  useEffect(() => setText(props.value), [props.value]);
  const done = (input: HTMLInputElement) => {
    const typed = input.value.trim();
    if (typed === props.value || input.value === props.value) return;
    const literal = typed && props.read(typed);
    if (literal === null) {
      input.setCustomValidity("A duration, such as 100ms, 1.5s or 2m");
      input.reportValidity();
    } else {
      props.change(literal);
      setText(literal ? unquoted(literal) : "");
    }
  };
  return (
    <>
      <input
        value={text}
        placeholder={props.placeholder}
        autocomplete="off"
        {...(props.options.length ? { list } : {})}
        onInput={(event) => {
          event.currentTarget.setCustomValidity("");
          setText(event.currentTarget.value);
          if (isChoice(event)) done(event.currentTarget);
        }}
        onChange={(event) => done(event.currentTarget)}
        onKeyDown={(event) => event.key === "Enter" && done(event.currentTarget)}
      />
      {props.options.length > 0 && (
        <datalist id={list}>
          {props.options.map((option) => (
            <option key={option} value={option} />
          ))}
        </datalist>
      )}
    </>
  );
}

/** Was one of the offered values chosen? What is typed may be the beginning of another. */
function isChoice(event: Event): boolean {
  const how = (event as InputEvent).inputType;
  return how === undefined || how === "insertReplacementText";
}
