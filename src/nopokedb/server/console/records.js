// Browse: the records that pass a filter, page by page.
import { Button, Field, Loading, Note, Tags, count, html, idText, short, useEffect, useState } from "./ui.js";
import { api } from "./api.js";
import { write } from "./json.js";
import { Filter } from "./filter.js";
import { RecordDialog } from "./record.js";

const PAGE = 50;

export const Records = ({ name, facts }) => {
  const [where, setWhere] = useState(null);
  const [order, setOrder] = useState("");
  const [records, setRecords] = useState([]);
  const [after, setAfter] = useState(null);
  const [total, setTotal] = useState(facts.count);
  const [state, setState] = useState("loading");
  const [error, setError] = useState(null);
  const [shown, setShown] = useState(null);

  const ask = async (behind) => {
    const body = { limit: PAGE, include: ["metadata", "text"] };
    if (where) body.where = where;
    if (order.trim()) body.order_by = order.trim();
    if (behind !== null) body.after = behind;
    return api.scan(name, body);
  };

  useEffect(() => {
    let current = true;
    setState("loading");
    const timer = setTimeout(async () => {
      try {
        const [page, all] = await Promise.all([ask(null), api.count(name, where)]);
        if (!current) return;
        setRecords(page.records);
        setAfter(page.after);
        setTotal(all);
        setError(null);
      } catch (problem) {
        if (current) setError(problem);
      }
      if (current) setState("done");
    }, 250);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [name, where === null ? null : write(where), order]);

  const more = async () => {
    setState("loading");
    try {
      const page = await ask(after);
      setRecords([...records, ...page.records]);
      setAfter(page.after);
    } catch (problem) {
      setError(problem);
    }
    setState("done");
  };
  const open = (event, id) => {
    if (event.type === "click" || event.key === "Enter") setShown({ id });
  };
  const hasText = records.some((record) => record.text);

  return html`
    <section class="controls">
      <${Filter} name=${name} onChange=${setWhere} />
      <${Field} label="Order by"><input list="fields" placeholder="id, or a field (- in front: down)" value=${order} onInput=${(e) => setOrder(e.target.value)} /><//>
    </section>
    ${error && html`<${Note} kind="bad" title=${error.type}>${error.message}<//>`}
    <p class="faint" aria-live="polite">${count(total)} ${total === 1 ? "record" : "records"}${where ? (total === 1 ? " passes the filter" : " pass the filter") : ""}</p>
    <div class="table" role="table" aria-label="Records">
      <div class="tr th" role="row"><span role="columnheader">id</span><span role="columnheader">metadata</span>${hasText && html`<span role="columnheader">text</span>`}</div>
      ${records.map(
        (record) => html`<div class="tr" role="row" tabindex="0" data-row key=${idText(record.id)}
          onClick=${(event) => open(event, record.id)} onKeyDown=${(event) => open(event, record.id)}>
          <span class="id" role="cell">${short(idText(record.id), 40)}</span>
          <span role="cell"><${Tags} metadata=${record.metadata} /></span>
          ${hasText && html`<span class="clip" role="cell">${short(record.text ?? "", 200)}</span>`}
        </div>`,
      )}
    </div>
    ${!records.length && state === "done" && !error && html`<${Note}>${where ? "No record passes the filter." : "No records yet."}<//>`}
    ${state === "loading" ? html`<${Loading} />` : after !== null && html`<div class="row center"><${Button} onClick=${more}>More<//></div>`}
    ${shown && html`<${RecordDialog} name=${name} id=${shown.id} onClose=${() => setShown(null)} />`}
  `;
};
