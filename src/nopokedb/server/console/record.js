// One record, in full.
import { Answer, Dialog, count, decimal, html, idText, useAnswer, useEffect, useRef } from "./ui.js";
import { api } from "./api.js";
import { write } from "./json.js";
import { to } from "./nav.js";

export const RecordDialog = ({ name, id, onClose }) => {
  const answer = useAnswer(() => api.get(name, id, ["metadata", "vector", "text"]), [name, id]);
  return html`<${Dialog} title=${idText(id)} kind="drawer" onClose=${onClose}>
    <${Answer} of=${answer}>
      ${(record) =>
        record === null
          ? html`<p>There is no such record any more.</p>`
          : html`
              <div class="row"><a class="button main" href=${to("c", name, "query", idText(id))} onClick=${onClose}>Find its neighbours</a></div>
              ${record.text !== null && record.text !== undefined && html`<h3>Text</h3><p class="text">${record.text}</p>`}
              <h3>Metadata</h3>
              <pre class="json">${write(record.metadata, 2)}</pre>
              ${record.vector && html`<h3>Vector <em>${count(record.vector.length)} components</em></h3><${Bars} vector=${record.vector} />
              <details><summary>Numbers</summary><pre class="json">${write(record.vector)}</pre></details>`}
            `}
    <//>
  <//>`;
};

// The components of a vector, side by side.
const Bars = ({ vector }) => {
  const canvas = useRef(null);
  useEffect(() => {
    const element = canvas.current;
    const context = element.getContext("2d");
    const ratio = devicePixelRatio || 1;
    const { width, height } = element.getBoundingClientRect();
    element.width = width * ratio;
    element.height = height * ratio;
    context.scale(ratio, ratio);
    const style = getComputedStyle(element);
    const most = Math.max(...vector.map(Math.abs), 1e-30);
    const step = width / vector.length;
    vector.forEach((value, at) => {
      context.fillStyle = style.getPropertyValue(value < 0 ? "--second" : "--accent");
      const tall = (Math.abs(value) / most) * (height / 2 - 1);
      context.fillRect(at * step, value < 0 ? height / 2 : height / 2 - tall, Math.max(0.6, step - (step > 3 ? 1 : 0)), tall);
    });
  }, [vector]);
  const low = Math.min(...vector);
  const high = Math.max(...vector);
  return html`<canvas class="bars" ref=${canvas} role="img" aria-label=${`from ${decimal(low)} to ${decimal(high)}`} />`;
};
