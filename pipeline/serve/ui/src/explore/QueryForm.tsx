/** A form that writes the query, for people who do not know the language; it reads simple queries back. */
import { useEffect, useState } from "preact/hooks";
import { useAnswer } from "../api/useAnswer";
import { type Condition, conditionsOf, type Operator, OPERATORS, spanset, typedLiteral, unquoted } from "../query";
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
}

const FIELDS: readonly Field[] = [
  { label: "Service", name: SERVICE, op: "=", placeholder: "any" },
  { label: "Operation", name: "name", op: "=", placeholder: "any" },
  { label: "At least", name: "duration", op: ">=", placeholder: "100ms" },
  { label: "At most", name: "duration", op: "<=", placeholder: "2s" },
];

export function QueryForm({ query, range, write }: Props) {
  const conditions = conditionsOf(query);
  const times = apiRange(range);
  const services = useAnswer(() => valuesOf(SERVICE, "", times), [Math.floor(range.fromS / 60)]);
  const chosen = conditions?.find((one) => one.name === SERVICE && one.op === "=");
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
  const isField = (one: Condition) =>
    one.name === "status" || FIELDS.some((field) => field.name === one.name && field.op === one.op);
  const rest = conditions.filter((one) => !isField(one));
  const replace = (name: string, op: Operator, value: string) => {
    const kept = conditions.filter((one) => one.name !== name || (name !== "status" && one.op !== op));
    write(spanset(value ? [...kept, { name, op, value }] : kept));
  };
  const valueOf = (field: Field) => {
    const found = conditions.find((one) => one.name === field.name && one.op === field.op);
    return found ? unquoted(found.value) : "";
  };
  const lists: Record<string, readonly string[]> = { [SERVICE]: services.value ?? [], name: operations.value ?? [] };
  const status = conditions.find((one) => one.name === "status")?.value ?? "";

  return (
    <div class="query-form">
      {FIELDS.map((field) => (
        <label key={field.label}>
          {field.label}
          <TextField
            value={valueOf(field)}
            placeholder={field.placeholder}
            options={(lists[field.name] ?? []).map(unquoted)}
            change={(value) => replace(field.name, field.op, value && typedLiteral(field.name, value))}
          />
        </label>
      ))}
      <label>
        Status
        <select value={status} onChange={(event) => replace("status", "=", event.currentTarget.value)}>
          <option value="">any</option>
          <option value="error">error</option>
          <option value="ok">ok</option>
          <option value="unset">unset</option>
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
    props.add({ name, op: op as Operator, value: typedLiteral(name, value) });
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

function TextField(props: { value: string; placeholder: string; options: readonly string[]; change: (value: string) => void }) {
  const [text, setText] = useState(props.value);
  const [list] = useState(() => `list-${Math.random().toString(36).slice(2)}`);
  useEffect(() => setText(props.value), [props.value]);
  const done = (value: string) => value.trim() !== props.value && props.change(value.trim());
  return (
    <>
      <input
        value={text}
        placeholder={props.placeholder}
        autocomplete="off"
        {...(props.options.length ? { list } : {})}
        onInput={(event) => {
          setText(event.currentTarget.value);
          if (props.options.includes(event.currentTarget.value)) done(event.currentTarget.value);
        }}
        onChange={(event) => done(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Enter" && done(event.currentTarget.value)}
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
