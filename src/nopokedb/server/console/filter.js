// A filter, built of conditions or written as JSON; `value` is the filter as the server takes it, null for none.
import { Button, Choice, Note, html, useEffect, useState } from "./ui.js";
import { api } from "./api.js";
import { read, typed, write } from "./json.js";

const OPERATORS = [
  ["$eq", "is"],
  ["$ne", "is not"],
  ["$gt", ">"],
  ["$gte", "≥"],
  ["$lt", "<"],
  ["$lte", "≤"],
  ["$in", "is one of"],
  ["$contains", "contains"],
  ["$starts_with", "starts with"],
  ["$like", "is like"],
  ["$exists", "exists"],
];

const conditionOf = ({ field, operator, text }) => {
  let value = typed(text);
  if (operator === "$in" && !Array.isArray(value)) value = text.split(",").map((part) => typed(part.trim()));
  if (operator === "$exists") value = text.trim() !== "false";
  if (operator === "$like" || operator === "$starts_with") value = text;
  return { [field]: { [operator]: value } };
};

export const filterOf = (rows, joined) => {
  const parts = rows.filter((row) => row.field.trim()).map(conditionOf);
  if (!parts.length) return null;
  return parts.length === 1 ? parts[0] : { [joined]: parts };
};

// Names of fields, as a few records have them.
export const useFields = (name) => {
  const [fields, set] = useState([]);
  useEffect(() => {
    api.scan(name, { limit: 50 }).then(
      ({ records }) => set([...new Set(records.flatMap((record) => Object.keys(record.metadata ?? {})))].sort()),
      () => set([]), // whoever asks for records is told why there are none
    );
  }, [name]);
  return fields;
};

export const Filter = ({ name, onChange }) => {
  const fields = useFields(name);
  const [mode, setMode] = useState("build");
  const [rows, setRows] = useState([]);
  const [joined, setJoined] = useState("$and");
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState(null);

  const built = (next, how = joined) => {
    setRows(next);
    onChange(filterOf(next, how));
  };
  const written = (value) => {
    setText(value);
    try {
      onChange(value.trim() ? read(value) : null);
      setWrong(null);
    } catch (error) {
      setWrong(error.message);
    }
  };
  const change = (at, part) => built(rows.map((row, number) => (number === at ? { ...row, ...part } : row)));
  const turn = (next) => {
    if (next === "json") setText(rows.length ? write(filterOf(rows, joined) ?? {}, 2) : "");
    setMode(next);
    setWrong(null);
  };

  return html`<fieldset class="filter">
    <legend>Filter</legend>
    <datalist id="fields"><option value="$id" />${fields.map((field) => html`<option value=${field} />`)}</datalist>
    ${mode === "build"
      ? html`${rows.map(
            (row, at) => html`<div class="condition" key=${at}>
              <input aria-label="Field" placeholder="field" list="fields" value=${row.field} onInput=${(e) => change(at, { field: e.target.value })} />
              <select aria-label="Operator" value=${row.operator} onChange=${(e) => change(at, { operator: e.target.value })}>
                ${OPERATORS.map(([key, words]) => html`<option value=${key} selected=${key === row.operator}>${words}</option>`)}
              </select>
              <input aria-label="Value" placeholder="value" value=${row.text} onInput=${(e) => change(at, { text: e.target.value })} />
              <${Button} kind="quiet" icon="close" aria-label="Remove" onClick=${() => built(rows.filter((_, number) => number !== at))} />
            </div>`,
          )}`
      : html`<textarea aria-label="Filter as JSON" rows="4" spellcheck="false" placeholder='{"year": {"$gte": 2020}}' value=${text} onInput=${(e) => written(e.target.value)} />`}
    ${wrong && html`<${Note} kind="bad">${wrong}<//>`}
    <div class="row">
      ${mode === "build" && html`<${Button} icon="plus" onClick=${() => built([...rows, { field: "", operator: "$eq", text: "" }])}>Condition<//>`}
      ${mode === "build" && rows.length > 1 && html`<${Choice} label="Joined by" value=${joined} options=${[["$and", "all"], ["$or", "any"]]} onChange=${(how) => (setJoined(how), built(rows, how))} />`}
      <span class="grow" />
      <${Choice} label="Filter as" value=${mode} options=${[["build", "Builder"], ["json", "JSON"]]} onChange=${turn} />
    </div>
  </fieldset>`;
};
