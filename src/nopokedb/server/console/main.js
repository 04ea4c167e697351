// The frame: which view is shown, the list of collections, the key, help, and keys of the keyboard.
import { Answer, Button, Dialog, Field, Icon, Note, count, html, render, useAnswer, useEffect, useState } from "./ui.js";
import { api, hasKey, onKeyWanted, setKey } from "./api.js";
import { go, place, to } from "./nav.js";
import { Overview } from "./overview.js";
import { Records } from "./records.js";
import { Query } from "./query.js";
import { SpaceMap } from "./map.js";
import { RecallCurve } from "./recall.js";
import { Live } from "./live.js";
import { Keeping } from "./keeping.js";

const TABS = [
  ["records", "Records", "list", Records],
  ["query", "Query", "search", Query],
  ["map", "Map", "map", SpaceMap],
  ["recall", "Recall", "curve", RecallCurve],
  ["keep", "Keep", "shield", Keeping],
];
const KEYS = [
  ["1 – 5", "the views of a collection"],
  ["0", "all collections"],
  ["l", "live charts"],
  ["/", "write a query"],
  ["j, k", "next and previous row; Enter opens it"],
  ["t", "light, dark, or as the system has it"],
  ["a", "enter a key"],
  ["?", "this list"],
  ["Esc", "close"],
];
const THEMES = ["auto", "light", "dark"];

const theme = () => localStorage.getItem("nopokedb-theme") ?? "auto";
const applyTheme = (name) => {
  localStorage.setItem("nopokedb-theme", name);
  document.documentElement.dataset.theme = name;
  dispatchEvent(new Event("themechange"));
};

const App = () => {
  const [where, setWhere] = useState(place);
  const [version, setVersion] = useState(0);
  const [asking, setAsking] = useState(false);
  const [helping, setHelping] = useState(false);
  const [open, setOpen] = useState(false);
  const [ready, setReady] = useState({ status: "…", reasons: [] });
  const [look, setLook] = useState(theme);
  const collections = useAnswer(() => api.collections(), [version]);
  const again = () => setVersion((value) => value + 1);

  useEffect(() => {
    onKeyWanted(() => setAsking(true));
    const moved = () => (setWhere(place()), setOpen(false));
    addEventListener("hashchange", moved);
    let stopped = false;
    const watch = async () => {
      const found = await api.ready();
      if (stopped) return;
      setReady(found);
      setTimeout(watch, 5000);
    };
    watch();
    return () => {
      stopped = true;
      removeEventListener("hashchange", moved);
    };
  }, []);

  const turn = () => {
    const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]; // the key may be faster than a rendering
    applyTheme(next);
    setLook(next);
  };

  useEffect(() => {
    const pressed = (event) => {
      const typing = event.target.closest?.("input, textarea, select, [contenteditable], dialog");
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      const number = TABS[Number(event.key) - 1];
      if (where.name && number) go("c", where.name, number[0]);
      else if (event.key === "0") go();
      else if (event.key === "l") go("live");
      else if (event.key === "/" && where.name) {
        go("c", where.name, "query");
        setTimeout(() => document.querySelector("[data-first]")?.focus(), 50);
      } else if (event.key === "t") turn();
      else if (event.key === "a") setAsking(true);
      else if (event.key === "?") setHelping(true);
      else if (event.key === "j" || event.key === "k") moveRow(event.key === "j" ? 1 : -1);
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });

  return html`
    <a class="skip" href="#content" onClick=${(e) => (e.preventDefault(), document.getElementById("content").focus())}>To the content</a>
    <aside class=${open ? "open" : ""}>
      <header>
        <a class="brand" href="#/"><img src="/console/icon.svg" alt="" /><span>NoPokeDB</span></a>
        <${Button} kind="quiet only-phone" icon=${open ? "close" : "menu"} aria-label="Menu" aria-expanded=${open} onClick=${() => setOpen(!open)} />
      </header>
      <nav aria-label="Collections">
        <a href="#/" class=${where.kind ? "" : "current"}><${Icon} name="home" />All collections</a>
        <a href="#/live" class=${where.kind === "live" ? "current" : ""}><${Icon} name="pulse" />Live</a>
        <h3>Collections</h3>
        ${(collections.value ?? []).map(
          (name) => html`<a key=${name} class=${"collection " + (where.name === name ? "current" : "")} title=${name}
            href=${to("c", name, where.tab ?? "records")}>${name}</a>`,
        )}
        ${collections.value?.length === 0 && html`<p class="faint">none yet</p>`}
      </nav>
      <footer>
        <span class=${"state " + (ready.status === "ready" ? "good" : "bad")} title=${ready.reasons?.join("; ")}>${ready.status}</span>
        <span class="grow" />
        <${Button} kind="quiet" icon="sun" aria-label=${`Theme: ${look}`} title=${`Theme: ${look}`} onClick=${turn} />
        <${Button} kind="quiet" icon="key" aria-label="Key" title=${hasKey() ? "Another key" : "Enter a key"} onClick=${() => setAsking(true)} />
        <${Button} kind="quiet" icon="help" aria-label="Help" title="Keys of the keyboard" onClick=${() => setHelping(true)} />
      </footer>
    </aside>
    <main id="content" tabindex="-1">
      ${ready.status === "not ready" && html`<${Note} kind="bad" title="The server is not ready">${ready.reasons?.join("; ")}<//>`}
      <${View} where=${where} collections=${collections} version=${version} again=${again} />
    </main>
    ${asking && html`<${KeyDialog} onClose=${() => setAsking(false)} onKey=${again} />`}
    ${helping &&
    html`<${Dialog} title="Keys" onClose=${() => setHelping(false)}>
      <dl class="keys">${KEYS.map(([keys, words]) => html`<dt><kbd>${keys}</kbd></dt><dd>${words}</dd>`)}</dl>
    <//>`}
  `;
};

const View = ({ where, collections, version, again }) => {
  if (where.kind === "live") return html`<${Live} key=${version} />`;
  if (where.kind === "c" && where.name) {
    const [tab, , , Shown] = TABS.find(([key]) => key === where.tab) ?? TABS[0];
    return html`<${Collection} key=${where.name + version} name=${where.name} tab=${tab} Shown=${Shown} rest=${where.rest} />`;
  }
  return html`<${Answer} of=${collections}>${(names) => html`<${Overview} key=${version} names=${names} again=${again} />`}<//>`;
};

const Collection = ({ name, tab, Shown, rest }) => {
  const described = useAnswer(() => api.describe(name), [name]);
  const facts = described.value;
  return html`
    <div class="head">
      <h1 title=${name}>${name}</h1>
      ${facts &&
      html`<p class="facts">
        <span><b>${count(facts.count)}</b> records</span><span><b>${facts.dim}</b> dimensions</span><span>${facts.space}</span>
        ${facts.embed && html`<span>${facts.embed}</span>`}
      </p>`}
    </div>
    <div class="tabs" role="tablist">
      ${TABS.map(
        ([key, words, icon], at) => html`<a role="tab" aria-selected=${key === tab} href=${to("c", name, key)}
          title=${`${words} (${at + 1})`}><${Icon} name=${icon} /><span>${words}</span></a>`,
      )}
    </div>
    <${Answer} of=${described}>${(found) => html`<${Shown} key=${tab} name=${name} facts=${found} rest=${rest} />`}<//>
  `;
};

const KeyDialog = ({ onClose, onKey }) => {
  const [key, set] = useState("");
  const use = (event) => {
    event.preventDefault();
    setKey(key.trim());
    onClose();
    onKey();
  };
  return html`<${Dialog} title="Key" onClose=${onClose}>
    <form onSubmit=${use}>
      <p>The server gives its data only to those who have a key. It is kept until this tab is closed, and sent to this server only.</p>
      <${Field} label="Key"><input type="password" name="key" autocomplete="off" value=${key} onInput=${(e) => set(e.target.value)} autofocus /><//>
      <div class="row end">
        ${hasKey() && html`<${Button} onClick=${() => (setKey(""), onClose(), onKey())}>Forget it<//>`}
        <button class="button main" type="submit">Use</button>
      </div>
    </form>
  <//>`;
};

const moveRow = (step) => {
  const rows = [...document.querySelectorAll("[data-row]")];
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement.closest("[data-row]"));
  rows[Math.min(rows.length - 1, Math.max(0, at + step))].focus();
};

applyTheme(theme());
render(html`<${App} />`, document.getElementById("app"));
